package main

import (
	"math"
	"math/rand/v2"
)

// places chooses the chunks that are written. What is hot lies all over the volume.
type places struct {
	seed  uint64
	order []int64 // the chunks, the hottest first
	rank  func(*rand.Rand) int
}

// writer gives one writer its places.
func (p places) writer(i int) func() int64 {
	rng := rand.New(rand.NewPCG(p.seed, uint64(i)+1))
	return func() int64 { return p.order[p.rank(rng)] }
}

func scattered(n int64, seed uint64) places {
	p := places{seed: seed, order: make([]int64, n)}
	for i, at := range rand.New(rand.NewPCG(seed, 0)).Perm(int(n)) {
		p.order[i] = int64(at)
	}
	return p
}

func uniform(n int64, seed uint64) places {
	p := scattered(n, seed)
	p.rank = func(rng *rand.Rand) int { return rng.IntN(int(n)) }
	return p
}

// eightyTwenty writes 80 % of the time to 20 % of the chunks.
func eightyTwenty(n int64, seed uint64) places {
	p, hot := scattered(n, seed), int(n/5)
	p.rank = func(rng *rand.Rand) int {
		if rng.IntN(5) > 0 {
			return rng.IntN(hot)
		}
		return hot + rng.IntN(int(n)-hot)
	}
	return p
}

// zipf is Gray's generator, as YCSB has it, with 0.99: that of math/rand wants more than 1.
func zipf(n int64, seed uint64) places {
	const theta = 0.99
	zeta := 0.0
	for i := int64(1); i <= n; i++ {
		zeta += math.Pow(float64(i), -theta)
	}
	alpha, zeta2 := 1/(1-theta), 1+math.Pow(2, -theta)
	eta := (1 - math.Pow(2/float64(n), 1-theta)) / (1 - zeta2/zeta)
	p := scattered(n, seed)
	p.rank = func(rng *rand.Rand) int {
		u := rng.Float64()
		switch uz := u * zeta; {
		case uz < 1:
			return 0
		case uz < zeta2:
			return 1
		}
		return min(int(n)-1, int(float64(n)*math.Pow(eta*u-eta+1, alpha)))
	}
	return p
}
