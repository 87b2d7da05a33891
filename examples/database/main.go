// Command database shows how sluice follows the leader of a database. It needs only Go, and ends by itself after about
// half a minute:
//
//	go run ./examples/database
//
// Two members are registered in a real Consul as Patroni does it, and take turns in holding the key service/batman/leader. Eight
// writers connect through sluice and never stop. After each change of the leader, the sessions to the
// former one end, and nothing goes there. The members and the writers are parts of this program; Consul and sluice are processes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/sluicetest"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "\ndatabase:", err)
		os.Exit(1)
	}
}

const (
	leaders  = 10
	writers  = 8
	patience = time.Minute // for each step
)

// configuration is sluice's, with Consul's address. The listener for the database is the only one.
const configuration = `consul: { addresses: [%q] }
listeners: [{ name: web, address: "127.0.0.1:0", protocol: tcp, service: postgres }]
services:
  postgres:
    consul: { service: batman, leader: { key: service/batman/leader } }
    wait_for_peer: 30s
`

// stage is what runs.
type stage struct {
	out       io.Writer
	directory string
	consul    *consultest.Agent
	sluice    *sluicetest.Sluice
	members   []*member
	session   string // of Consul, that holds the key
	writing   *writing
}

// run shows the leaders, and removes everything.
func run(ctx context.Context, out io.Writer) (err error) {
	s := &stage{out: out}
	defer func() { err = errors.Join(err, s.clear()) }()
	if err := s.start(ctx); err != nil {
		return err
	}
	var cuts []time.Duration
	for n := range leaders {
		old, next := s.members[n%2], s.members[(n+1)%2]
		cut, err := s.change(ctx, old, next)
		if err != nil {
			return err
		}
		cuts = append(cuts, cut)
		s.line("%s leads: the %d sessions to %s ended %s after it had lost the key", next.name, writers, old.name, cut.Round(100*time.Microsecond))
	}
	late := s.members[0].late.Load() + s.members[1].late.Load()
	slices.Sort(cuts)
	s.line("\n%d leaders, %d rows, %d to a former one; the median of the cuts is %s", leaders, s.writing.rows.Load(), late, cuts[leaders/2].Round(100*time.Microsecond))
	if late > 0 {
		return fmt.Errorf("%d rows went to a member that did not lead", late)
	}
	return nil
}

func (s *stage) line(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

func (s *stage) start(ctx context.Context) (err error) {
	if s.directory, err = os.MkdirTemp("", "sluice-database-"); err != nil {
		return err
	}
	s.line("Building sluice, and starting Consul, two members and sluice.")
	built := make(chan error, 1)
	go func() { built <- sluicetest.Build(ctx, s.directory, "sluice") }()
	s.consul, err = consultest.StartAgent(ctx, consultest.Options{Node: "database", Progress: s.out})
	if err = errors.Join(err, <-built); err != nil {
		return err
	}
	for _, name := range []string{"pg-1", "pg-2"} {
		m, err := startMember(name)
		if err != nil {
			return err
		}
		s.members = append(s.members, m)
		if err := s.consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: "batman/" + name, Name: "batman", Address: "127.0.0.1", Port: m.port(),
		}); err != nil {
			return err
		}
	}
	if _, err := s.name(ctx, s.members[0]); err != nil {
		return err
	}
	file := filepath.Join(s.directory, "sluice.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, s.consul.URL()), 0o600); err != nil {
		return err
	}
	if s.sluice, err = sluicetest.Start(ctx, sluicetest.Options{
		Program: filepath.Join(s.directory, "sluice"), Args: []string{"--config", file},
		Log: filepath.Join(s.directory, "sluice.log"), Admin: sluicetest.Any,
	}); err != nil {
		return err
	}
	s.writing = startWriting(s.sluice.Address("web"))
	return s.awaitSessions(ctx, s.members[0])
}

// change makes next the leader in place of old, and returns how long after the loss of the key the last session to old
// has ended. old then counts what comes too late.
func (s *stage) change(ctx context.Context, old, next *member) (cut time.Duration, err error) {
	next.demoted.Store(false)
	lost, err := s.name(ctx, next)
	if err != nil {
		return 0, err
	}
	if err := await(ctx, "the end of the sessions to "+old.name, func() bool { return old.open.Load() == 0 }); err != nil {
		return 0, err
	}
	old.demoted.Store(true)
	return time.Unix(0, old.ended.Load()).Sub(lost), s.awaitSessions(ctx, next)
}

// awaitSessions waits until all writers have written to a member.
func (s *stage) awaitSessions(ctx context.Context, m *member) error {
	before := s.writing.rows.Load()
	return await(ctx, "sessions to "+m.name, func() bool {
		return m.open.Load() == writers && s.writing.rows.Load() > before+10*writers
	})
}

// name makes a member hold the key, as Patroni does, and returns when the former one had lost it.
func (s *stage) name(ctx context.Context, m *member) (lost time.Time, err error) {
	client := s.consul.Client()
	if s.session != "" {
		if _, err := client.Session().Destroy(s.session, nil); err != nil {
			return lost, err
		}
	}
	lost = time.Now()
	s.session, _, err = client.Session().Create(&api.SessionEntry{Behavior: api.SessionBehaviorDelete, LockDelay: time.Millisecond}, nil)
	if err != nil {
		return lost, err
	}
	var failed error
	err = await(ctx, m.name+" to hold the key", func() bool {
		var held bool
		held, _, failed = client.KV().Acquire(&api.KVPair{Key: "service/batman/leader", Value: []byte(m.name), Session: s.session}, nil)
		return held || failed != nil
	})
	return lost, errors.Join(err, failed)
}

// await waits until a condition holds.
func await(ctx context.Context, what string, holds func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited %s for %s", patience, what))
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// clear ends everything and removes the files.
func (s *stage) clear() error {
	var errs []error
	if s.writing != nil {
		s.writing.stop()
	}
	if s.sluice != nil {
		errs = append(errs, s.sluice.Stop())
	}
	for _, m := range s.members {
		errs = append(errs, m.stop())
	}
	if s.consul != nil {
		errs = append(errs, s.consul.Close())
	}
	if s.directory != "" {
		errs = append(errs, os.RemoveAll(s.directory))
	}
	return errors.Join(errs...)
}
