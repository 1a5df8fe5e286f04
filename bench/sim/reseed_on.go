//go:build simreplay

package sim

import _ "unsafe" // for go:linkname

// reseed makes the scheduler's lots follow from a seed, 0: from nothing again. See package overlay.
//
//go:linkname reseed runtime.simReseed
func reseed(seed uint64)
