// Package lab tests cawrm in a virtual machine with Debian's kernel.
//
// What it needs of the kernel (the nbd driver, attaching by netlink, file
// systems on /dev/nbdN) is not on every machine that builds cawrm, and wants
// root. vm.sh boots a throw-away machine under emulation and runs one script
// in it; each test is such a script. This package has no code of its own.
package lab
