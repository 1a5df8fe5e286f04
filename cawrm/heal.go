package cawrm

import (
	"context"
	"errors"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

// healTime bounds how long a read waits for a mirror to say what a damaged chunk held.
const healTime = 5 * time.Second

// ReadAt is the volume's ReadAt, but that a chunk which does not match its checksum is asked of the mirrors that are
// connected, and mended. A mirror has it as long as it was not written since there, nor is still to come. Errors: the volume's.
func (s *Source) ReadAt(p []byte, off int64) error {
	err := s.v.ReadAt(p, off)
	var bad *aodi.CorruptError
	for errors.As(err, &bad) && bad.What == "chunk" {
		lba := bad.LBA
		if !s.heal(lba) {
			return err
		}
		if err = s.v.ReadAt(p, off); errors.As(err, &bad) && bad.LBA == lba {
			return err
		}
	}
	return err
}

// heal tells whether a chunk that could not be read is worth another try.
func (s *Source) heal(lba uint64) bool {
	s.healing.Lock() // one at a time: who reads the same chunk finds it mended
	defer s.healing.Unlock()
	var p [format.ChunkSize]byte
	if s.v.ReadAt(p[:], int64(lba)*format.ChunkSize) == nil {
		return true
	}
	sum, ok := s.v.Sum24(lba)
	if !ok {
		return true // discarded meanwhile
	}
	for _, m := range s.Mirrors() {
		data, err := m.fetch(lba, sum)
		if err == nil {
			_, err = s.v.Mend(lba, data)
		}
		if err == nil {
			m.tell(EventRepaired, "chunk %d did not match its checksum when it was read, and was mended from this mirror", lba)
			return true
		}
		m.log.Warn("a damaged chunk is not to be had from this mirror", "chunk", lba, "err", err)
	}
	return false
}

// fetch asks a mirror for a chunk with that checksum.
func (m *Mirror) fetch(lba uint64, sum uint32) ([]byte, error) {
	c, err := m.beginCheck(false)
	if err != nil {
		return nil, err
	}
	defer m.endCheck(c)
	ctx, cancel := context.WithTimeout(context.Background(), healTime)
	defer cancel()
	j := &verifier{m: m, c: c, ctx: ctx}
	a, err := j.ask(wire.Check{Op: wire.CheckWant, First: lba, Count: uint64(sum)}, format.ChunkSize)
	return a.Body, err
}
