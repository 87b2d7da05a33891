package simulation

import (
	"fmt"
	"slices"
	"time"
)

// An instant is what has happened to a service at one time. w.mu guards its fields.
//
// Goroutines that run at the same time have no order, and each may be held up between a step
// of the pool and the note of it in the model. So a rule that such a step can lift is judged
// when all goroutines wait again.
type instant struct {
	at         time.Time
	changed    bool       // a peer joined, left or changed its state, other than by being ejected
	moved      bool       // the same, or was ejected
	configured bool       // settings changed
	stirred    []*request // which ended, or whose tries or waits began or ended
}

func (s *service) now() *instant {
	if s.instant == nil || s.instant.at != time.Now() {
		s.instant = &instant{at: time.Now()}
	}
	return s.instant
}

func (i *instant) unsettled() bool { return i.changed || i.configured }
func (i *instant) shifted() bool   { return i.moved || i.configured }

// others reports whether another request ended, or a try or a wait of one began or ended.
func (i *instant) others(r *request) bool {
	return slices.ContainsFunc(i.stirred, func(o *request) bool { return o != r })
}

// doubt is a violation, unless it is lifted by something else at the same time.
type doubt struct {
	lifted func() bool
	text   string
}

// doubtLocked records a violation, unless lifted holds when all goroutines wait again.
func (w *world) doubtLocked(lifted func() bool, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.doubts = append(w.doubts, doubt{lifted, fmt.Sprintf("%s (at %v)", text, time.Since(w.begin))})
}

// judgeLocked turns what was not lifted into a violation, while all goroutines wait.
func (w *world) judgeLocked() {
	for _, d := range w.doubts {
		if !d.lifted() {
			w.violateLocked("%s", d.text)
		}
	}
	w.doubts = nil
}
