package operator

import (
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/observe/events"
	"sluice/observe/logs"
)

// Process is what operators have ordered about this process: whether it is ready, and the level of
// its log. A new process takes it over (SIGUSR2), a restart ends it. Its methods may be called
// concurrently.
type Process struct {
	owner  *Ownership
	events *events.Feed
	logs   *logs.Writer
	log    zerolog.Logger

	mu sync.Mutex // guards the fields below

	state  ProcessState
	level  zerolog.Level // of the configuration
	format string
}

// ProcessState are the orders that stand.
type ProcessState struct {
	NotReady *NotReady `json:"not_ready,omitempty"` // nil: readiness is up to the process
	LogLevel *logLevel `json:"log_level,omitempty"` // nil: the configuration says it
}

// NotReady is the order that this process is not ready, although it serves.
type NotReady struct {
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
}

// logLevel is used as long as the configuration has the level that it replaces.
type logLevel struct {
	Level    string    `json:"level"`
	Replaces string    `json:"replaces"`
	By       string    `json:"by"`
	Since    time.Time `json:"since"`
}

// LogLevel is the level of the log, as the API shows it.
type LogLevel struct {
	Level      string    `json:"level"`
	Configured string    `json:"configured"` // log.level
	By         string    `json:"by,omitempty"`
	Since      time.Time `json:"since,omitzero"` // of an operator's Level; absent: it is Configured
}

// NewProcess returns a Process without orders. owner says whether it takes orders, w is the log
// that it sets.
func NewProcess(owner *Ownership, w *logs.Writer, feed *events.Feed) *Process {
	return &Process{owner: owner, logs: w, log: w.Logger(), events: feed}
}

// State returns the orders for a new process.
func (p *Process) State() ProcessState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Restore takes over the orders of another process. The log has their level with the next
// Configure.
func (p *Process) Restore(s ProcessState) {
	p.change(func(state *ProcessState) { *state = s })
}

func (p *Process) change(f func(*ProcessState)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.state)
}

// TurnReady makes this process not ready, or ends that. The error is ErrTakeover.
func (p *Process) TurnReady(off bool, why, by string) error {
	return p.owner.Order(func() error {
		text, kind := "An operator has made sluice ready again", events.KindReady
		var order *NotReady
		if off {
			text, kind = "An operator has made sluice not ready, and requests are still served"+events.Because(why), events.KindNotReady
			order = &NotReady{Why: why, Since: storedTime(time.Now())}
		} else if p.State().NotReady == nil {
			return nil
		}
		p.change(func(s *ProcessState) { s.NotReady = order })
		text += byWhom(by)
		p.log.Info().Msg(text)
		p.events.Add(events.Event{Kind: kind, Text: text})
		return nil
	})
}

// byWhom says who has given an order, if that is known.
func byWhom(by string) string {
	if by == "" {
		return ""
	}
	return " (by " + by + ")"
}

// LogLevel returns the level of the log.
func (p *Process) LogLevel() LogLevel {
	p.mu.Lock()
	defer p.mu.Unlock()
	configured := p.level.String()
	l := LogLevel{Level: configured, Configured: configured}
	if o := p.state.LogLevel; o != nil {
		l.Level, l.By, l.Since = o.Level, o.By, o.Since
	}
	return l
}

// SetLogLevel replaces the level of the configuration; "": no longer. The error is ErrTakeover.
func (p *Process) SetLogLevel(level, by string) error {
	return p.owner.Order(func() error {
		var text string
		p.change(func(s *ProcessState) {
			configured := p.level.String()
			text, s.LogLevel = "The level of the log is "+configured+", the level of the configuration", nil
			if level != "" {
				text = "The level of the log is " + level
				s.LogLevel = &logLevel{Level: level, Replaces: configured, By: by, Since: storedTime(time.Now())}
			}
			p.useLocked()
		})
		text += byWhom(by)
		p.log.WithLevel(zerolog.NoLevel).Msg(text) // whatever the level is
		p.events.Add(events.Event{Kind: events.KindLogLevel, Text: text})
		return nil
	})
}

// Configure applies the level and the format of the log, as logs.Writer.Set does. Who changes the
// level in the configuration has the last word: it ends the order about the level.
func (p *Process) Configure(level zerolog.Level, format string) {
	p.change(func(s *ProcessState) {
		p.level, p.format = level, format
		if s.LogLevel != nil && s.LogLevel.Replaces != level.String() {
			s.LogLevel = nil
		}
		p.useLocked()
	})
}

// useLocked applies the settings of the log, and the level that an operator has set.
func (p *Process) useLocked() {
	level := p.level
	if o := p.state.LogLevel; o != nil {
		if ordered, err := zerolog.ParseLevel(o.Level); err == nil {
			level = ordered
		}
	}
	p.logs.Set(level, p.format)
}
