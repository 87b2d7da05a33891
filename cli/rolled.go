package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"sluice/admin"
	"sluice/admin/fleet"
	"sluice/cli/roll"
	"sluice/discovery"
	"sluice/observe/panics"
	"sluice/operator"
)

// rolled is a service of the sluice that a roll drains instances in.
type rolled struct {
	api
	service string

	mu   sync.Mutex // guards name
	name string     // Consul's name of the service, known since the first drain
}

var _ roll.Sluice = (*rolled)(nil)

func (s *rolled) Peers(ctx context.Context) ([]admin.Peer, error) {
	return peersOf(&s.api, s.service).get(ctx)
}

func (s *rolled) Stale(ctx context.Context) (string, error) {
	q := servicesOf(&s.api)
	q.query = url.Values{"service": {s.service}}
	services, err := q.get(ctx)
	for _, found := range services {
		if found.Watch != nil && found.Watch.State != discovery.WatchFresh.String() {
			return fmt.Sprintf("what sluice knows of %s is %s: %s", printable(s.service), found.Watch.State, printableWhy(found.Watch.LastError)), err
		}
	}
	return "", err
}

// Drain also fails if Consul does not have the drain: other replicas would go on. The roll
// ends it then.
func (s *rolled) Drain(ctx context.Context, p admin.Peer, why string, lasts time.Duration) error {
	query := url.Values{"by": {userAtHost()}, "why": {why}}
	if lasts > 0 {
		query.Set("for", lasts.String())
	}
	done, err := s.give(ctx, p, "drain", query)
	if err == nil && done.Shared && done.Pending != "" {
		err = errors.New("other replicas do not have the drain: " + printableWhy(done.Pending))
	}
	if done.Peer != nil {
		for _, o := range done.Peer.Orders {
			if o.Kind == operator.Drain && !o.OfNode() {
				s.mu.Lock()
				s.name = o.Service
				s.mu.Unlock()
			}
		}
	}
	return err
}

func (s *rolled) Enable(ctx context.Context, p admin.Peer) error {
	_, err := s.give(ctx, p, "enable", url.Values{"by": {userAtHost()}})
	return err
}

func (s *rolled) Busy(ctx context.Context, p admin.Peer) (string, error) {
	_, busy, unknown, err := s.inFlight(ctx, func(other *admin.Peer) bool { return sameInstance(*other, p) })
	if busy == "" {
		busy = unknown
	}
	return busy, err
}

func (s *rolled) Disagreement(ctx context.Context) (string, error) {
	all, err := s.replicas(ctx)
	for _, d := range all.Differences {
		if d.Kind == fleet.PartInstances || d.Kind == fleet.PartOrders {
			return printableWhy(d.Summary), err
		}
	}
	for _, u := range all.Unknown {
		return fmt.Sprintf("%s: %s", printable(u.Replica), printableWhy(u.Why)), err
	}
	return printableWhy(all.Error), err
}

// checkReplicas fails if a drain would reach only one of several replicas, or nobody would know.
func (s *rolled) checkReplicas(ctx context.Context) error {
	all, err := s.replicas(ctx)
	if err != nil {
		return err
	}
	for _, u := range all.Unknown {
		return fmt.Errorf("the replica %s cannot be asked whether it has drained: %s", printable(u.Replica), printableWhy(u.Why))
	}
	for _, m := range all.Replicas {
		if _, shares := m.Parts[fleet.PartOrders]; len(all.Replicas) > 1 && m.Self && !shares {
			return errors.New("the replicas do not share drains: consul.orders has to be set")
		}
	}
	return nil
}

// nameInConsul returns Consul's name of the service.
func (s *rolled) nameInConsul() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.name, s.service)
}

// untilSecondSignal returns a context that the first signal ends, and one that a second ends.
func untilSecondSignal(ctx context.Context, errs io.Writer) (first, second context.Context, done func()) {
	second, endSecond := context.WithCancelCause(ctx)
	first, endFirst := context.WithCancelCause(second)
	signals, ended := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer close(ended)
		defer panics.Contain(panics.Task, nil)
		for n, end := range []context.CancelCauseFunc{endFirst, endSecond} {
			select {
			case received := <-signals:
				if end(fmt.Errorf("interrupted: %v", received)); n == 0 {
					fmt.Fprintln(errs, "sluice: the roll ends after the present command; another signal ends that too")
				}
			case <-second.Done():
				return
			}
		}
	}()
	return first, second, func() {
		signal.Stop(signals)
		endSecond(nil)
		<-ended
	}
}

// endWith returns a context that ends with each of two.
func endWith(ctx, other context.Context) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(ctx)
	stop := context.AfterFunc(other, func() {
		defer panics.Contain(panics.Task, nil)
		end(context.Cause(other))
	})
	return ctx, func() { stop(); end(nil) }
}

// commandPatience is how long a command may take to end after SIGTERM.
const commandPatience = 10 * time.Second

// runCommand runs a command until it has ended. When ctx ends it gets SIGTERM, and later SIGKILL.
func runCommand(ctx context.Context, command []string, out, errs io.Writer) error {
	c, err := startChild(command, os.Environ(), nil, out, errs)
	if err != nil {
		return fmt.Errorf("the command cannot be started: %w", err)
	}
	select {
	case <-c.exited:
		if c.status != 0 {
			return fmt.Errorf("the command has ended with status %d", c.status)
		}
		return nil
	case <-ctx.Done():
	}
	c.signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(commandPatience):
		c.kill()
		<-c.exited
	}
	c.endGroup(commandPatience)
	return context.Cause(ctx)
}
