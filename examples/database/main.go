// Command database shows how sluice follows the leader of a database. It needs only Go, and ends by
// itself after about half a minute:
//
//	go run ./examples/database
//
// Two members are registered in a real Consul as Patroni does it, and take turns in holding the key
// service/batman/leader. Eight writers connect through sluice and never stop. After each change of
// the leader, the sessions to the former one end, and nothing goes there. The members and the
// writers are parts of this program; Consul and sluice are processes.
package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/sluicetest"
	"sluice/test/stage"
)

func main() { stage.Run("database", show) }

const (
	leaders = 10
	writers = 8
)

// configuration is sluice's, with Consul's address. The listener for the database is the only one.
const configuration = `consul: { addresses: [%q] }
listeners: [{ name: web, address: "127.0.0.1:0", protocol: tcp, service: postgres }]
services:
  postgres:
    consul: { service: batman, leader: { key: service/batman/leader } }
    wait_for_peer: 30s
`

// tour is what runs.
type tour struct {
	*stage.Stage
	members []*member
	session string // of Consul, that holds the key
	writing *writing
}

// show shows the leaders.
func show(ctx context.Context, on *stage.Stage) error {
	s := &tour{Stage: on}
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
		s.Line("%s leads: the %d sessions to %s ended %s after it had lost the key", next.name, writers, old.name, cut.Round(100*time.Microsecond))
	}
	late := s.members[0].late.Load() + s.members[1].late.Load()
	slices.Sort(cuts)
	s.Line("\n%d leaders, %d rows, %d to a former one; the median of the cuts is %s", leaders, s.writing.rows.Load(), late, cuts[leaders/2].Round(100*time.Microsecond))
	if late > 0 {
		return fmt.Errorf("%d rows went to a member that did not lead", late)
	}
	return nil
}

func (s *tour) start(ctx context.Context) error {
	s.Line("Building sluice, and starting Consul, two members and sluice.")
	if err := s.StartConsul(ctx); err != nil {
		return err
	}
	for _, name := range []string{"pg-1", "pg-2"} {
		m, err := startMember(name)
		if err != nil {
			return err
		}
		s.End(m.stop)
		s.members = append(s.members, m)
		if err := s.Consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: "batman/" + name, Name: "batman", Address: "127.0.0.1", Port: m.port(),
		}); err != nil {
			return err
		}
	}
	if err := s.Serve(ctx, fmt.Sprintf(configuration, s.Consul.URL())); err != nil {
		return err
	}
	if _, err := s.name(ctx, s.members[0]); err != nil {
		return err
	}
	s.writing = startWriting(s.Address("web"))
	s.End(s.writing.stop)
	return s.awaitSessions(ctx, s.members[0])
}

// change makes next the leader in place of old, and returns how long after the loss of the key the
// last session to old has ended. old then counts what comes too late.
func (s *tour) change(ctx context.Context, old, next *member) (cut time.Duration, err error) {
	next.demoted.Store(false)
	lost, err := s.name(ctx, next)
	if err != nil {
		return 0, err
	}
	if err := s.await(ctx, "the end of the sessions to "+old.name, func() bool { return old.open.Load() == 0 }); err != nil {
		return 0, err
	}
	old.demoted.Store(true)
	return time.Unix(0, old.ended.Load()).Sub(lost), s.awaitSessions(ctx, next)
}

// awaitSessions waits until all writers have written to a member.
func (s *tour) awaitSessions(ctx context.Context, m *member) error {
	before := s.writing.rows.Load()
	return s.await(ctx, "sessions to "+m.name, func() bool {
		return m.open.Load() == writers && s.writing.rows.Load() > before+10*writers
	})
}

// name makes a member hold the key, as Patroni does, and returns when the former one had lost it.
func (s *tour) name(ctx context.Context, m *member) (lost time.Time, err error) {
	client := s.Consul.Client()
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
	err = s.Await(ctx, sluicetest.Patience, m.name+" to hold the key", func(context.Context) (bool, error) {
		held, _, err := client.KV().Acquire(&api.KVPair{Key: "service/batman/leader", Value: []byte(m.name), Session: s.session}, nil)
		return held, err
	})
	return lost, err
}

// await waits until a condition holds.
func (s *tour) await(ctx context.Context, what string, holds func() bool) error {
	return s.Await(ctx, sluicetest.Patience, what, func(context.Context) (bool, error) { return holds(), nil })
}
