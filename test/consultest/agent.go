package consultest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/subprocess"
	"sluice/test/verify"
)

// startTries limits the starts of an agent that ends for a transient reason.
const startTries = 10

// transient are messages of Consul for transient errors at its start: another program has one
// of its ports, or its DNS server did not start within a second on a busy machine.
var transient = []string{"address already in use", "timeout starting DNS servers"}

// errTransient: the agent could not start, for a transient reason.
var errTransient = errors.New("consul could not start")

// Agent is a Consul agent in a child process. Its ports stay the same when it is stopped and
// launched again. The methods that start and stop the process must not be called
// concurrently; the others may.
type Agent struct {
	options   Options
	binary    string
	dir       string // configuration, log and data
	ports     ports
	reserved  io.Closer // reserves the ports until it is closed
	client    *api.Client
	anonymous *api.Client         // without a token
	process   *subprocess.Process // nil if the agent does not run
	denies    bool                // its ACLs are set up in this run
}

// Start runs an agent until t and its subtests end, and waits until it is ready. After an
// error it fails t. If t fails, it logs the last lines of the log of the agent.
func Start(t testing.TB, o Options) *Agent {
	t.Helper()
	a := start(t, o)
	t.Cleanup(func() {
		err := a.Close()
		verify.That(t, err == nil, "close consul: %v", err)
	})
	a.logIfFailed(t)
	return a
}

// start is StartAgent for a test.
func start(t testing.TB, o Options) *Agent {
	t.Helper()
	ctx, cancel := beforeDeadline(t)
	defer cancel()
	a, err := StartAgent(ctx, o)
	verify.Require(t, err == nil, "start consul: %v", err)
	return a
}

// logIfFailed logs the last lines of the log when t has failed.
func (a *Agent) logIfFailed(t testing.TB) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the log of consul at %s:\n%s", a.HTTPAddress(), a.LogTail(40))
		}
	})
}

// StartAll is Start for several agents at a time. None of them can join another one.
func StartAll(t testing.TB, options ...Options) []*Agent {
	t.Helper()
	agents := make([]*Agent, len(options))
	var starting sync.WaitGroup
	for i, o := range options {
		starting.Go(func() { agents[i] = Start(t, o) })
	}
	starting.Wait()
	verify.Require(t, !slices.Contains(agents, nil), "an agent could not start")
	return agents
}

// errNoTime: the build of Consul takes longer than the deadline of the test.
var errNoTime = errors.New("the time that go test gives a package is over (-timeout); run it again: what has been built so far is kept")

// beforeDeadline returns a context that ends with t, and so early that t can report it before
// go test ends the package.
func beforeDeadline(t testing.TB) (context.Context, context.CancelFunc) {
	const reserve = 10 * time.Second
	if test, ok := t.(*testing.T); ok {
		if deadline, ok := test.Deadline(); ok {
			return context.WithDeadlineCause(t.Context(), deadline.Add(-reserve), errNoTime)
		}
	}
	return context.WithCancel(t.Context())
}

// StartAgent runs an agent until Close, and waits until it is ready. ctx limits only the start.
func StartAgent(ctx context.Context, o Options) (*Agent, error) {
	binary := o.Program
	if binary == "" {
		var err error
		if binary, err = Binary(ctx, o.Progress); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "sluice-consul-")
	if err != nil {
		return nil, err
	}
	if o.ACLs && o.Mode != Client && o.Token == "" {
		o.Token = newSecret()
	}
	a := &Agent{options: o, binary: binary, dir: dir}
	for try := 1; ; try++ {
		err = a.startOnNewPorts(ctx)
		if err == nil {
			return a, nil
		}
		if !errors.Is(err, errTransient) || try == startTries {
			a.Close()
			return nil, err
		}
	}
}

func (a *Agent) startOnNewPorts(ctx context.Context) error {
	a.giveBackPorts()
	var err error
	if a.ports, a.reserved, err = reserve(a.options.HTTPPort); err != nil {
		return err
	}
	if a.client, err = api.NewClient(&api.Config{Address: a.HTTPAddress(), Token: a.options.Token}); err != nil {
		return err
	}
	if a.anonymous, err = api.NewClient(&api.Config{Address: a.HTTPAddress()}); err != nil {
		return err
	}
	config, err := a.options.config(a.ports, a.dataDir())
	if err != nil {
		return err
	}
	if err := os.WriteFile(a.configFile(), config, 0o600); err != nil {
		return err
	}
	return a.launch(ctx)
}

// Launch starts a stopped agent again, on the same ports, with its data on disk. It waits
// until the agent is ready.
func (a *Agent) Launch(ctx context.Context) error {
	if a.process != nil {
		return errors.New("the agent runs")
	}
	for try := 1; ; try++ {
		err := a.launch(ctx)
		if !errors.Is(err, errTransient) || try == startTries {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// launch starts the process, and waits until the agent is ready. After an error the process
// has ended.
func (a *Agent) launch(ctx context.Context) error {
	args := []string{"agent", "-config-file", a.configFile()}
	if a.options.Mode == Dev {
		args = append(args, "-dev")
	}
	log, err := os.OpenFile(a.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has a copy
	p, err := subprocess.Start(subprocess.Options{Program: a.binary, Args: args, Output: log})
	if err != nil {
		return err
	}
	a.process, a.denies = p, false
	await := a.ready
	if a.options.NoWait {
		await = a.listens
	}
	if err := a.wait(ctx, await); err != nil {
		a.Kill()
		return err
	}
	return nil
}

// WaitReady waits until the agent answers queries and has a leader.
func (a *Agent) WaitReady(ctx context.Context) error { return a.wait(ctx, a.ready) }

func (a *Agent) wait(ctx context.Context, ready func(context.Context) error) error {
	p := a.process
	if p == nil {
		return errors.New("the agent does not run")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, Patience, fmt.Errorf("not ready within %v", Patience))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		notReady := ready(ctx)
		if notReady == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.Exited():
			tail := a.LogTail(20)
			if slices.ContainsFunc(transient, func(why string) bool { return strings.Contains(tail, why) }) {
				return fmt.Errorf("%w:\n%s", errTransient, tail)
			}
			return fmt.Errorf("consul ended by itself: %v\n%s", p.Err(), tail)
		case <-ctx.Done():
			return fmt.Errorf("wait for consul: %w (%v)\n%s", context.Cause(ctx), notReady, a.LogTail(20))
		}
	}
}

// ready returns why the agent is not ready.
func (a *Agent) ready(ctx context.Context) error {
	q := (&api.QueryOptions{}).WithContext(ctx)
	// Without a leader, other queries would be answered some time after there is one.
	if leader, err := a.client.Status().LeaderWithQueryOptions(q); err != nil || leader == "" {
		return errors.Join(errors.New("no known leader"), err)
	}
	if a.options.ACLs && a.options.Mode != Client && !a.denies {
		if err := a.bootstrap(ctx); err != nil {
			return err
		}
		a.denies = true
	}
	services, meta, err := a.client.Health().Service("consul", "", false, q)
	switch {
	case err != nil:
		return err
	case !meta.KnownLeader:
		return errors.New("no known leader")
	case len(services) == 0 && !meta.ResultsFilteredByACLs:
		return errors.New("no server is registered yet")
	}
	return nil
}

// listens returns an error if the agent does not listen on all its ports. It starts its HTTP
// API last.
func (a *Agent) listens(ctx context.Context) error {
	_, err := a.client.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
	if status := (api.StatusError{}); errors.As(err, &status) {
		return nil
	}
	return err
}

// Stop ends the process with SIGTERM. A stopped agent can be launched again.
func (a *Agent) Stop() error { return a.end((*subprocess.Process).Stop) }

// Kill ends the process with SIGKILL. A killed agent can be launched again.
func (a *Agent) Kill() error { return a.end((*subprocess.Process).Kill) }

func (a *Agent) end(how func(*subprocess.Process) error) error {
	p := a.process
	if p == nil {
		return nil
	}
	a.process = nil
	if err := how(p); err != nil {
		return fmt.Errorf("end consul: %w", err)
	}
	return nil
}

// Restart stops the agent, and launches it again: a dev agent without data, others with their data.
func (a *Agent) Restart(ctx context.Context) error {
	if err := a.Stop(); err != nil {
		return err
	}
	return a.Launch(ctx)
}

// Wipe removes the data of a stopped agent.
func (a *Agent) Wipe() error {
	if a.process != nil {
		return errors.New("the agent runs")
	}
	return os.RemoveAll(a.dataDir())
}

// Pause suspends the process (SIGSTOP): its connections stay open, without answers. Only on Unix.
func (a *Agent) Pause() error { return a.signal((*subprocess.Process).Pause) }

// Resume continues a paused process (SIGCONT).
func (a *Agent) Resume() error { return a.signal((*subprocess.Process).Resume) }

func (a *Agent) signal(signal func(*subprocess.Process) error) error {
	if a.process == nil {
		return errors.New("the agent does not run")
	}
	return signal(a.process)
}

// Process returns the running process, or nil.
func (a *Agent) Process() *subprocess.Process { return a.process }

// Close kills the process if it runs, removes the files of the agent, and releases its ports.
func (a *Agent) Close() error {
	defer a.giveBackPorts()
	return errors.Join(a.Kill(), os.RemoveAll(a.dir))
}

func (a *Agent) giveBackPorts() {
	if a.reserved != nil {
		a.reserved.Close()
		a.reserved = nil
	}
}

// RestoreSnapshot makes the servers restore a snapshot that was saved before, and fails t after
// Patience. It asks again if it gets no answer: Consul 1.22 has been seen not to answer for 19
// minutes, on a busy machine.
func (a *Agent) RestoreSnapshot(t testing.TB, saved []byte) {
	t.Helper()
	Await(t, "the snapshot is restored", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), Patience/8)
		defer cancel()
		return a.client.Snapshot().Restore((&api.WriteOptions{}).WithContext(ctx), bytes.NewReader(saved)) == nil
	})
}

// Client returns a client of the agent, which stays valid after restarts.
func (a *Agent) Client() *api.Client { return a.client }

// URL returns the base URL of the HTTP API.
func (a *Agent) URL() string { return "http://" + a.HTTPAddress() }

// HTTPAddress returns the "host:port" of the HTTP API.
func (a *Agent) HTTPAddress() string { return loopback(a.ports.HTTP) }

// HTTPSAddress returns the "host:port" of the HTTP API over TLS, with
// Options.TLS.
func (a *Agent) HTTPSAddress() string { return loopback(a.ports.HTTPS) }

// DNSAddress returns the "host:port" of the DNS server, UDP and TCP.
func (a *Agent) DNSAddress() string { return loopback(a.ports.DNS) }

// ServerAddress returns the "host:port" of a server's RPC.
func (a *Agent) ServerAddress() string { return loopback(a.ports.Server) }

// SerfAddress returns the "host:port" for the Join of other agents.
func (a *Agent) SerfAddress() string { return loopback(a.ports.SerfLAN) }

// WANAddress returns the "host:port" for agents of other data centres to join,
// with Options.WAN.
func (a *Agent) WANAddress() string { return loopback(a.ports.SerfWAN) }

// LogTail returns the last lines of the log of all runs of the agent.
func (a *Agent) LogTail(lines int) string {
	log, err := os.ReadFile(a.logFile())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (a *Agent) configFile() string { return filepath.Join(a.dir, "config.json") }
func (a *Agent) logFile() string    { return filepath.Join(a.dir, "consul.log") }
func (a *Agent) dataDir() string    { return filepath.Join(a.dir, "data") }
