package cawrm

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"cawrm/aodi"
)

// Source is a volume with its mirrors, which come and go while it is used. Those that are added with Add are kept in the
// volume's catalog and started with it; those of AddGiven are only as long as whoever gives them goes on giving them, but their
// settings are remembered by their ids too.
type Source struct {
	v       *aodi.Volume
	cfg     MirrorConfig // of every mirror, but for what names it
	waiters *waiters

	quit, watched chan struct{} // of runWatch
	quitOnce      sync.Once

	change  sync.Mutex // one change at a time
	healing sync.Mutex // one damaged chunk at a time

	mu      sync.Mutex
	mirrors []*Mirror // in the order in which they came
}

// NewSource starts the mirrors that the volume keeps. cfg is for each mirror, without ID, URL and Settings. Errors: those
// of Start. With an objective, the time that a mirror may be behind at most, events tell of mirrors that are.
func NewSource(v *aodi.Volume, cfg MirrorConfig, objective time.Duration) (*Source, error) {
	s := &Source{v: v, cfg: cfg, waiters: newWaiters(), quit: make(chan struct{}), watched: make(chan struct{})}
	s.cfg.moved = s.waiters.wake
	for _, r := range v.Mirrors() {
		if !r.Kept {
			continue
		}
		if err := s.start(r.ID, r.URL, true); err != nil {
			close(s.watched)
			s.Close()
			return nil, fmt.Errorf("mirror %s, which the volume keeps: %w", r.ID, err)
		}
	}
	if objective > 0 {
		go s.runWatch(objective)
	} else {
		close(s.watched)
	}
	return s, nil
}

// Close ends all mirrors' loops, and flushes that wait for them. The mirrors are left as they are.
func (s *Source) Close() {
	s.EndFlushes()
	s.quitOnce.Do(func() { close(s.quit) })
	<-s.watched
	s.change.Lock()
	defer s.change.Unlock()
	var wg sync.WaitGroup
	for _, m := range s.Mirrors() {
		wg.Go(m.Close)
	}
	wg.Wait()
}

// Mirrors returns the mirrors in the order in which they came.
func (s *Source) Mirrors() []*Mirror {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Mirror(nil), s.mirrors...)
}

// Status says how the mirrors are.
func (s *Source) Status() []Status {
	var all []Status
	for _, m := range s.Mirrors() {
		st := m.Status()
		s.flushStatus(m, &st)
		all = append(all, st)
	}
	return all
}

// Mirror finds a mirror by its id. The error says which there are.
func (s *Source) Mirror(id string) (*Mirror, error) {
	var ids []string
	for _, m := range s.Mirrors() {
		if m.cfg.ID == id {
			return m, nil
		}
		ids = append(ids, m.cfg.ID)
	}
	if ids == nil {
		return nil, fmt.Errorf("there is no mirror %s: the volume has none; `cawrm mirror add` adds one", id)
	}
	return nil, fmt.Errorf("there is no mirror %s; there are: %s", id, strings.Join(ids, ", "))
}

// AddGiven starts a mirror that is not kept: whoever opens the volume next gives it again, or it is not there. One that the
// volume keeps under that id is taken over, with the URL that is given.
func (s *Source) AddGiven(id, url string) error {
	s.change.Lock()
	defer s.change.Unlock()
	m, err := s.Mirror(id)
	if err != nil {
		return s.start(id, url, false)
	}
	if !m.cfg.Kept {
		return fmt.Errorf("there is a mirror %s already", id)
	}
	return s.move(m, url)
}

// Add starts a mirror and keeps it. Errors: an id that is taken, a URL or a setting that cannot be used; the volume's, when it
// cannot be kept.
func (s *Source) Add(id, url string, assignments ...string) error {
	s.change.Lock()
	defer s.change.Unlock()
	if m, err := s.Mirror(id); err == nil {
		return fmt.Errorf("there is a mirror %s already, at %s; `cawrm mirror set` changes it, `cawrm mirror remove` ends it", id, m.target.base())
	}
	to, err := ParseURL(url)
	if err != nil {
		return err
	}
	for _, m := range s.Mirrors() {
		if m.target.base() == to.base() {
			return fmt.Errorf("%s is mirror %s already", url, m.cfg.ID)
		}
	}
	set := to.settings()
	if err := set.assignAll(assignments); err != nil {
		return err
	}
	to.Query = set.Query()
	s.v.ForgetMirror(id) // of an earlier one of that name nothing counts
	if err := s.start(id, to.String(), true); err != nil {
		return err
	}
	return s.keep(id)
}

// Remove ends a mirror's loop and forgets the mirror. What it holds is left as it is.
func (s *Source) Remove(id string) error {
	s.change.Lock()
	defer s.change.Unlock()
	m, err := s.Mirror(id)
	if err != nil {
		return err
	}
	s.stop(m)
	s.v.ForgetMirror(id)
	return s.checkpoint(fmt.Sprintf("mirror %s is removed", id))
}

// Set changes settings of a mirror, each given as key=value, all or none; url=... moves it to another address.
// Errors: those of Settings.Set; the volume's, when they cannot be kept.
func (s *Source) Set(id string, assignments ...string) error {
	s.change.Lock()
	defer s.change.Unlock()
	m, err := s.Mirror(id)
	if err != nil {
		return err
	}
	set, url, rest := m.Settings(), "", []string(nil)
	for _, a := range assignments {
		if to, ok := strings.CutPrefix(a, "url="); ok {
			url = to
		} else {
			rest = append(rest, a)
		}
	}
	if err := set.assignAll(rest); err != nil {
		return err
	}
	if url != "" {
		if _, err := ParseURL(url); err != nil {
			return err
		}
	}
	m.Change(set)
	if url != "" {
		if err := s.move(m, url); err != nil {
			return err
		}
	}
	return s.keep(id)
}

func (s *Settings) assignAll(assignments []string) error {
	for _, a := range assignments {
		if err := s.Assign(a); err != nil {
			return err
		}
	}
	return nil
}

// move starts a mirror anew at another address. Its settings stay, unless the URL names some.
func (s *Source) move(m *Mirror, url string) error {
	if _, err := ParseURL(url); err != nil {
		return err
	}
	s.stop(m)
	return s.start(m.cfg.ID, url, m.cfg.Kept)
}

// start is called with change held, but by NewSource.
func (s *Source) start(id, url string, kept bool) error {
	cfg := s.cfg
	cfg.ID, cfg.URL, cfg.Kept = id, url, kept
	m, err := Start(s.v, cfg)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mirrors = append(s.mirrors, m)
	return nil
}

// stop ends a mirror's loop and takes it out.
func (s *Source) stop(m *Mirror) {
	m.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.mirrors {
		if s.mirrors[i] == m {
			s.mirrors = append(s.mirrors[:i:i], s.mirrors[i+1:]...)
			s.waiters.wake()
			return
		}
	}
}

// keep makes what the volume remembers of a mirror durable.
func (s *Source) keep(id string) error {
	m, err := s.Mirror(id)
	if err != nil {
		return err
	}
	m.remember()
	return s.checkpoint(fmt.Sprintf("the change of mirror %s is in effect", id))
}

// checkpoint makes the catalog durable; done says what has happened already should that fail.
func (s *Source) checkpoint(done string) error { return kept(s.v, done) }

func kept(v *aodi.Volume, done string) error {
	if err := v.Checkpoint(); err != nil {
		return errors.Join(fmt.Errorf("%s, but a restart may not remember it", done), err)
	}
	return nil
}
