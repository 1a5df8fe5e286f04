//go:build !race

package aodi_test

const raceEnabled = false
