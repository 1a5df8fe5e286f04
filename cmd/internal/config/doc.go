// Package config reads the file of `cawrm serve --config`, and adds volumes to it and takes them out.
//
//	nbd  = ["unix:/run/cawrm/nbd.sock", "10.0.0.1:10809"]     what stands above the tables is the daemon's
//	peer = ":10810"
//
//	[volume.db]                                               a volume: its name and, below, its keys
//	path   = "/var/lib/cawrm/db.img"
//	mirror = ["paris=cawrm://10.0.0.2:10810/db"]
//
// A key is the name of a flag of `cawrm serve`, and its value the text that the flag takes; a flag that can be repeated
// takes a list. So the package knows no key: it hands each to a set of flags, and an error says file and line.
//
// Absences: the daemon's own changes keep comments, because they are made to the text; they are whole tables only.
package config
