// Command cawrm gives a machine a block device over NBD that is always mirrored elsewhere.
//
// main is a list: the commands are in root.go, each in a file of its own. Exit codes: 0 done, 1 failed, 2 wrong
// usage.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }
