//go:build !simreplay

package sim

func reseed(uint64) {}
