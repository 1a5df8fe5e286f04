package lab

import "embed"

// Scripts are what it takes to boot a machine: `cawrm bench peers` boots one wherever the binary is.
//
//go:embed vm.sh guest-init.sh
var Scripts embed.FS
