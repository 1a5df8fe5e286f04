//go:build !race

package nbdsrv_test

const raceEnabled = false
