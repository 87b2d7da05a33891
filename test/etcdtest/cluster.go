package etcdtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"sluice/test/consultest"
	"sluice/test/pinned"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// EnvBinary is the environment variable with the path of the etcd program.
const EnvBinary = "SLUICE_ETCD"

const dir = "test/etcdtest/etcd"

var (
	server = pinned.Program{Name: "etcd", Title: "etcd", Module: "go.etcd.io/etcd/server/v3", Dir: dir}
	ctl    = pinned.Program{Name: "etcdctl", Title: "etcdctl", Module: "go.etcd.io/etcd/etcdctl/v3", Dir: dir}
)

// Ctl returns the path of etcdctl, and builds it if necessary. progress is as in
// pinned.Program.Binary.
func Ctl(ctx context.Context, progress io.Writer) (string, error) { return ctl.Binary(ctx, progress) }

// patience limits each wait, far above the usual duration on a busy machine.
const patience = 2 * time.Minute

// maxMembers is the number of members for which a block of ports is enough.
const maxMembers = 4

// Options configure a cluster. The zero value is one member.
type Options struct {
	Members int      // at most 4; 0: 1
	HTTPS   bool     // the clients' URLs; Args has the flags for certificates
	Args    []string // further flags of each member
	// Progress gets the lines of a build of etcd, if one is needed.
	Progress io.Writer
}

// Cluster is an etcd cluster. Its ports stay the same when members are stopped and launched.
type Cluster struct {
	Members []*Member

	dir      string
	reserved io.Closer // of the ports
}

// Member is a member of a cluster. Its methods that start, end and suspend the process must not
// be called concurrently.
type Member struct {
	*subprocess.Process // nil before the first Launch
	Endpoint            string

	binary string
	args   []string
	dir    string
	log    string
}

// Start runs a cluster until t and its subtests end, and waits until it answers.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	o.Progress = cmp.Or[io.Writer](o.Progress, os.Stderr)
	c, err := StartCluster(t.Context(), o)
	if err != nil {
		t.Fatalf("start etcd: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, m := range c.Members {
				t.Logf("end of the log of etcd at %s:\n%s", m.Endpoint, m.logTail())
			}
		}
		if err := c.Close(); err != nil {
			t.Errorf("close etcd: %v", err)
		}
	})
	if !o.HTTPS {
		c.Await(t)
	}
	return c
}

// StartCluster runs a cluster until Close. It does not wait until the cluster answers.
func StartCluster(ctx context.Context, o Options) (c *Cluster, err error) {
	binary := os.Getenv(EnvBinary)
	if binary == "" {
		if binary, err = server.Binary(ctx, o.Progress); err != nil {
			return nil, fmt.Errorf("build etcd: %w (or set %s)", err, EnvBinary)
		}
	}
	c = &Cluster{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.dir, err = os.MkdirTemp("", "sluice-etcd-"); err != nil {
		return nil, err
	}
	first, reserved, err := consultest.ReserveBlock()
	if err != nil {
		return nil, err
	}
	c.reserved = reserved
	n := max(o.Members, 1)
	if n > maxMembers {
		return nil, fmt.Errorf("%d members: want at most %d", n, maxMembers)
	}
	scheme := "http"
	if o.HTTPS {
		scheme = "https"
	}
	heartbeat, election := "200", "2000" // in ms, for a busy machine
	if n == 1 {
		heartbeat, election = "20", "200" // it leads as soon as it has waited for others in vain, and for good
	}
	var peers []string
	for i := range n {
		peers = append(peers, fmt.Sprintf("m%d=http://127.0.0.1:%d", i, first+2*i+1))
	}
	for i := range n {
		m := &Member{
			Endpoint: fmt.Sprintf("%s://127.0.0.1:%d", scheme, first+2*i),
			binary:   binary, dir: filepath.Join(c.dir, fmt.Sprintf("m%d", i)), log: filepath.Join(c.dir, fmt.Sprintf("m%d.log", i)),
		}
		_, peer, _ := strings.Cut(peers[i], "=")
		m.args = append([]string{
			"--name", fmt.Sprintf("m%d", i), "--data-dir", m.dir, "--log-level", "warn", "--unsafe-no-fsync",
			"--listen-client-urls", m.Endpoint, "--advertise-client-urls", m.Endpoint,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(peers, ","),
			"--heartbeat-interval", heartbeat, "--election-timeout", election,
		}, o.Args...)
		c.Members = append(c.Members, m)
		if err = m.Launch(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Launch starts a member that does not run, with its data and on its port.
func (m *Member) Launch() error {
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has a copy
	m.Process, err = subprocess.Start(subprocess.Options{Program: m.binary, Args: m.args, Output: log})
	return err
}

// Save returns a copy of the data of a member that does not run.
func (m *Member) Save(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	verify.NoError(t, os.CopyFS(dir, os.DirFS(m.dir)))
	return dir
}

// Restore replaces the data of a member that does not run by those in dir; empty: by none.
func (m *Member) Restore(t testing.TB, dir string) {
	t.Helper()
	verify.NoError(t, os.RemoveAll(m.dir))
	if dir == "" {
		return
	}
	verify.NoError(t, os.CopyFS(m.dir, os.DirFS(dir)))
	verify.NoError(t, filepath.WalkDir(m.dir, func(path string, e os.DirEntry, err error) error {
		mode := os.FileMode(0o600)
		if err == nil && e.IsDir() {
			mode = 0o700 // etcd wants no other one
		}
		return errors.Join(err, os.Chmod(path, mode))
	}))
}

func (m *Member) logTail() string {
	log, err := os.ReadFile(m.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}

// Close kills the members and removes their data.
func (c *Cluster) Close() error {
	var errs []error
	for _, m := range c.Members {
		if m.Process != nil {
			errs = append(errs, m.Kill())
		}
	}
	if c.reserved != nil {
		c.reserved.Close()
	}
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

// Endpoints returns the URLs of the members.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.Members {
		all = append(all, m.Endpoint)
	}
	return all
}

// Client returns a client that is closed when t ends. change may change its settings.
func (c *Cluster) Client(t testing.TB, change ...func(*clientv3.Config)) *clientv3.Client {
	t.Helper()
	config := clientv3.Config{
		Endpoints: c.Endpoints(), DialTimeout: patience, Logger: zap.NewNop(),
		// By default gRPC waits longer each time, up to two minutes, for a member that does not
		// run.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, MaxDelay: 200 * time.Millisecond},
			MinConnectTimeout: 20 * time.Second, // the default
		})},
	}
	for _, f := range change {
		f(&config)
	}
	client := verify.Result(clientv3.New(config)).Must(t)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Await waits until the cluster answers a linearizable query.
func (c *Cluster) Await(t testing.TB) {
	t.Helper()
	client := c.Client(t)
	consultest.Await(t, "etcd answers", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := client.Get(ctx, "ready")
		return err == nil
	})
	_ = client.Close()
}
