package metric

import (
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"cawrm/cmd/internal/control"
	"cawrm/nbdsrv"
)

// Sources are who knows what is told. They are asked from any goroutine.
type Sources struct {
	Status   func() control.Status
	NBD      func() nbdsrv.Stats
	Requests func() map[string]*Requests // by volume
	Version  string
}

// Handler answers a scrape.
func Handler(s Sources) http.Handler {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(newCollector(s), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// metricOf is a row that Prometheus knows.
type metricOf[T any] struct {
	row  row[T]
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func describe[T any](rows []row[T], labels ...string) (all []metricOf[T]) {
	for _, r := range rows {
		m := metricOf[T]{r, prometheus.NewDesc(r.name, r.help, labels, nil), prometheus.GaugeValue}
		if kindOf(r.name) == "counter" {
			m.kind = prometheus.CounterValue
		}
		all = append(all, m)
	}
	return all
}

func kindOf(name string) string {
	if strings.HasSuffix(name, "_total") {
		return "counter"
	}
	return "gauge"
}

type collector struct {
	from                 Sources
	volume               []metricOf[control.Volume]
	space                []metricOf[control.Space]
	source               []metricOf[control.Source]
	mirror               []metricOf[control.Mirror]
	nbd                  []metricOf[nbdsrv.Stats]
	build, info, latency *prometheus.Desc
}

func newCollector(s Sources) *collector {
	return &collector{
		from: s, volume: describe(volumeRows, "volume"), space: describe(spaceRows, "volume"), source: describe(sourceRows, "volume"),
		mirror: describe(mirrorRows, "volume", "mirror"), nbd: describe(nbdRows),
		build:   prometheus.NewDesc(buildInfo.Name, buildInfo.Help, buildInfo.Labels, nil),
		info:    prometheus.NewDesc(volumeInfo.Name, volumeInfo.Help, volumeInfo.Labels, nil),
		latency: prometheus.NewDesc(duration.Name, duration.Help, duration.Labels, nil),
	}
}

// Describe is Prometheus' way to ask what there can be.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.build
	ch <- c.info
	ch <- c.latency
	for _, m := range c.volume {
		ch <- m.desc
	}
	for _, m := range c.space {
		ch <- m.desc
	}
	for _, m := range c.source {
		ch <- m.desc
	}
	for _, m := range c.mirror {
		ch <- m.desc
	}
	for _, m := range c.nbd {
		ch <- m.desc
	}
}

// Collect is Prometheus' way to ask.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(c.build, prometheus.GaugeValue, 1, c.from.Version)
	emit(ch, c.nbd, c.from.NBD())
	for _, v := range c.from.Status().Volumes {
		name := clean(v.Name)
		ch <- prometheus.MustNewConstMetric(c.info, prometheus.GaugeValue, 1, name, v.Role, v.VolumeID, clean(v.Path))
		emit(ch, c.volume, v, name)
		if v.Space != nil {
			emit(ch, c.space, *v.Space, name)
		}
		if v.Source != nil {
			emit(ch, c.source, *v.Source, name)
		}
		for _, m := range v.Mirrors {
			emit(ch, c.mirror, m, name, clean(m.ID))
		}
	}
	for volume, requests := range c.from.Requests() {
		for op := range requests {
			count, sum, buckets := requests[op].snapshot()
			ch <- prometheus.MustNewConstHistogram(c.latency, count, sum, buckets, clean(volume), Operations[op])
		}
	}
}

func emit[T any](ch chan<- prometheus.Metric, metrics []metricOf[T], from T, labels ...string) {
	for _, m := range metrics {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.row.value(from), labels...)
	}
}

// clean makes a label of any bytes that a path may hold.
func clean(s string) string { return strings.ToValidUTF8(s, "?") }
