// Package packages holds what a Debian or RPM package and the tarball bring beside the program: systemd units, the daemon's user
// and folders, a first configuration. build makes the packages (make package).
package packages
