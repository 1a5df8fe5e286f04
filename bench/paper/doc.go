// Package paper repeats the experiments of the CAWRM paper: Figures 7 to 10, formula (1), and resumption after an outage, with the
// three architectures in one process, over the same emulated line and on the same disk.
//
//	traditional   bench/baseline over a volume in place; a journal at the backup
//	loose         bench/baseline over aodi, at both sites
//	tight         cawrm: the volume's log is shipped beside the writers
//
// A rig is one architecture with its two sites and its line. Rigs that are compared live side by side and take turns, A B C
// A B C, so that what else the machine does falls on all. Writes are counted until they are durable: each
// turn ends with a flush, inside the time.
package paper
