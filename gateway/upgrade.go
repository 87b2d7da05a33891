package gateway

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/observe/events"
	"sluice/observe/panics"
	"sluice/observe/wake"
	"sluice/proxy/handover"
)

// pauseTimeout is how long this process pauses its watches of Consul for a new process. If the
// new process does not serve by then, both watch Consul, although the agent may refuse some
// connections.
const pauseTimeout = 10 * time.Second

// upgrade is the place of this process between an old one, which it may replace, and a new one,
// which may replace it.
type upgrade struct {
	consul   *consul.Client
	parts    func(abandoned int) []handover.Part // see Gateway.parts
	watching []pausable                          // what watches Consul
	follow   func()                              // watches again the services of which this process needs changes
	denials  pausable                            // the intentions in the mesh, which end connections too
	save     func()                              // saves the sets
	own      func(bool)                          // begins or ends the ownership of this process
	version  string                              // of the program
	events   *events.Feed
	log      zerolog.Logger

	takingOver bool          // this process replaces an old one
	restored   bool          // the state of the old process has been restored
	warm       chan struct{} // closed when clients may be served
	decided    atomic.Bool   // that this process serves, by warmUp, or that it stops, by shutdown: whichever is first
	served     atomic.Bool   // Options.Serving was called
	replacing  sync.Mutex    // held by replaceBy
	succeeded  bool          // a new process has replaced this one; guarded by replacing
	replaced   bool          // another process serves clients; used by the goroutine of Run
}

type pausable interface {
	Pause()
	Resume()
}

// serves reports whether this process serves clients, or is about to: it is warm, and no old
// process serves in its place.
func (u *upgrade) serves() bool { return wake.Closed(u.warm) && (!u.takingOver || u.served.Load()) }

// restore restores the state of the old process, if there is one; request is Options.RequestState.
// The listeners must be bound, because the old process gives its state only once.
func (u *upgrade) restore(request func() (state io.ReadCloser, replacing bool, err error)) {
	var state io.ReadCloser
	var err error
	if request != nil {
		state, u.takingOver, err = request()
	}
	if state == nil {
		_ = handover.Restore(nil, u.parts(0)) // without a state there is no error
	} else {
		defer state.Close()
		err = handover.Restore(state, u.parts(0))
		u.restored = err == nil
	}
	started := events.Event{Kind: events.KindStarted, Text: "sluice " + u.version + " has started"}
	if u.takingOver {
		started.Text += " in place of another process"
	}
	u.events.Add(started)
	switch {
	case err != nil:
		u.log.Warn().Err(err).Msg("the state of the old process cannot be used")
	case u.restored:
		u.log.Info().Msg("the state of the old process is restored")
	case u.takingOver:
		u.log.Info().Msg("the old process hands over only its listeners")
	}
}

// replaceBy is [Gateway.ReplaceBy]. pause is how long this process pauses its watches.
func (u *upgrade) replaceBy(replace func(give func(io.Writer) error) error, pause time.Duration) {
	if !u.replacing.TryLock() {
		u.log.Warn().Msg("a new process is already starting")
		return
	}
	defer u.replacing.Unlock()
	if u.succeeded || u.takingOver && !u.served.Load() { // another process owns: this one must not after a failure
		u.log.Warn().Msg("this process does not serve: it starts no new one")
		return
	}
	u.log.Info().Msg("starting a new process")
	abandoned := 0
	resume := func() {
		u.consul.Reduce(abandoned)
		for _, w := range u.watching {
			w.Resume()
		}
	}
	var once sync.Once // resume, or the end of this process
	err := replace(func(w io.Writer) error {
		u.save() // the new process may be killed before its first write
		u.own(false)
		abandoned = u.pause()
		time.AfterFunc(pause, func() {
			defer panics.Contain(panics.Task, nil)
			once.Do(func() {
				u.log.Warn().Stringer("after", pause).Msg("the new process does not serve yet: this one watches Consul again")
				resume()
			})
		})
		defer u.follow()
		return handover.Save(w, u.parts(abandoned))
	})
	if err != nil {
		once.Do(resume)
		u.own(true)
		u.log.Error().Err(err).Msg("the new process does not serve: this one continues")
		return
	}
	u.succeeded = true
	once.Do(func() {})
	u.own(false) // replace may not have called give
	u.pause()
	u.consul.ReleaseConnections()
	u.follow()
	u.denials.Resume() // not before: there may be many
}

// followOn is follow for a process that was replaced, not before replaceBy has ended.
func (u *upgrade) followOn() {
	u.replacing.Lock()
	defer u.replacing.Unlock()
	u.follow()
}

// pause ends the watches and closes their connections: the agent might not accept the connections
// of two processes. It returns the number of connections that the agent still counts.
func (u *upgrade) pause() (abandoned int) {
	return u.consul.Release(func() {
		for _, w := range slices.Backward(u.watching) {
			w.Pause()
		}
	})
}
