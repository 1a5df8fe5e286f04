package main

// workload is one case: arguments of fio and the figure that counts.
type workload struct {
	name   string
	args   []string
	once   bool // the image is gone over once, and the time ends when all is durable
	unit   string
	figure func(result) float64
	lower  bool // a lower figure is better
}

func (w workload) title() string { return w.name }

func (w workload) show(v float64) string { return number(v) + " " + w.unit }

// cases lists the workloads, those that leave the images as they were filled
// first.
func cases(mirror bool) []workload {
	iops := func(r result) float64 { return r.IOPS }
	mbps := func(r result) float64 { return r.BytesPerSecond / 1e6 }
	p50 := func(r result) float64 { return r.P50us }
	all := []workload{
		{name: "seqread-256k", unit: "MB/s", figure: mbps, args: []string{"--rw=read", "--bs=256k", "--iodepth=16"}},
		{name: "randread-4k-qd32", unit: "IOPS", figure: iops, args: []string{"--rw=randread", "--bs=4k", "--iodepth=32"}},
		{name: "randread-4k-qd1", unit: "us p50", figure: p50, lower: true, args: []string{"--rw=randread", "--bs=4k", "--iodepth=1"}},
		// What is written once and flushed at the end has to get to the disk, whoever serves it. Without a flush a server
		// with the kernel's page cache writes over dirty memory, and never to the disk.
		{name: "seqwrite-256k", unit: "MB/s", figure: mbps, once: true, args: []string{"--rw=write", "--bs=256k", "--iodepth=16", "--end_fsync=1"}},
		{name: "seqwrite-256k-unflushed", unit: "MB/s", figure: mbps, args: []string{"--rw=write", "--bs=256k", "--iodepth=16"}},
		{name: "seqwrite-256k-f64", unit: "MB/s", figure: mbps, args: []string{"--rw=write", "--bs=256k", "--iodepth=16", "--fsync=64"}},
		{name: "randwrite-4k-qd32", unit: "IOPS", figure: iops, args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=32"}},
		{name: "randwrite-4k-qd32-f64", unit: "IOPS", figure: iops, args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=32", "--fsync=64"}},
		{name: "randwrite-4k-qd1", unit: "us p50", figure: p50, lower: true, args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=1"}},
		{name: "randwrite-4k-qd1-f1", unit: "IOPS", figure: iops, args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"}},
	}
	if mirror {
		// A writer that leaves the processors time: what the mirror costs
		// when they are not the limit.
		all = append(all,
			workload{name: "randwrite-4k-2000/s", unit: "us p50", figure: p50, lower: true,
				args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=16", "--rate_iops=2000"}},
			workload{name: "randwrite-4k-2000/s-f64", unit: "us p99", figure: func(r result) float64 { return r.P99us }, lower: true,
				args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=16", "--rate_iops=2000", "--fsync=64"}})
	}
	return all
}
