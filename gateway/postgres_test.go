package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/verify"
)

const envPostgres = "SLUICE_REQUIRE_POSTGRES"

// TestLeaderOfPostgreSQL lets a pair of PostgreSQL servers take turns in leading, while clients
// write. Nothing comes to the former leader, and the last session ends soon after Consul's answer,
// as a query of the test itself for the same key gets it.
func TestLeaderOfPostgreSQL(t *testing.T) {
	long.Test(t)
	programs := verify.Result(filepath.Glob("/usr/lib/postgresql/*/bin")).Must(t)
	if len(programs) == 0 {
		if os.Getenv(envPostgres) != "" {
			t.Fatal("no /usr/lib/postgresql/*/bin: want Debian's package postgresql")
		}
		t.Skip("no PostgreSQL; " + envPostgres + "=1 requires it")
	}
	const flips, writers = 100, 8
	agent := consultest.Start(t, consultest.Options{})
	pair := []*observed{}
	var all []*database
	for _, name := range []string{"a", "b"} {
		o := observe(t, startPostgres(t, programs[len(programs)-1], name))
		pair, all = append(pair, o), append(all, &database{name: name, port: o.port})
	}
	name := consulLeader(t, agent.Client(), "pg", "key", all...)
	name(all[0])
	r := start(t, fmt.Sprintf(`consul: { addresses: [%q] }
listeners: [{ name: db, address: "127.0.0.1:0", protocol: tcp, service: db }]
services: { db: { consul: { service: pg, leader: { key: service/pg/leader } }, wait_for_peer: 1m } }
shutdown: { idle: 0s, grace: 0s }
`, agent.URL()))
	address := r.Address("db").String()
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	var written atomic.Int64
	for range writers {
		writing.Go(func() {
			for ctx.Err() == nil {
				_ = write(ctx, address, &written)
			}
		})
	}
	t.Cleanup(func() { stop(); writing.Wait() })
	// A flip is two changes of the key. This is half of the rate at which sluice asks for it.
	pace := time.NewTicker(2 * 2 * time.Second / consul.QueryRate)
	defer pace.Stop()
	var cuts, answers []time.Duration // after Consul's answer; after the order to change the leader
	for n := range flips {
		old, next := pair[n%2], pair[(n+1)%2]
		<-pace.C
		before := written.Load()
		r.await(fmt.Sprintf("flip %d: all write to %s", n, all[n%2].name), func() bool { return old.open.Load() == writers && written.Load() > before+5*writers })
		verify.Equal(t, next.seen(), next.last, "flip %d: since its last session ended, %s has got", n, all[(n+1)%2].name)
		answered := whenLeaderEnds(ctx, t, agent.Client(), "service/pg/leader", all[n%2].name)
		ordered := time.Now()
		name(all[(n+1)%2])
		r.await(fmt.Sprintf("flip %d: no connection to %s", n, all[n%2].name), func() bool { return old.open.Load() == 0 })
		old.last = old.seen()
		at := <-answered
		cuts = append(cuts, time.Unix(0, old.ended.Load()).Sub(at))
		answers = append(answers, at.Sub(ordered))
		r.await(fmt.Sprintf("flip %d: all write to %s", n, all[(n+1)%2].name), func() bool { return next.open.Load() == writers })
	}
	former := pair[(flips-1)%2]
	verify.Equal(t, former.seen(), former.last, "since its last session ended, %s has got", all[(flips-1)%2].name)
	slices.Sort(cuts)
	slices.Sort(answers)
	median, own := cuts[flips/2], answers[flips/2]
	t.Logf("%d flips, %d rows: the last of %d sessions ended within %v (median) and %v (worst) of Consul's answer, which came %v (median) and %v (worst) after the order",
		flips, written.Load(), writers, median, cuts[flips-1], own, answers[flips-1])
	// Both stand still with the machine, and half of the flips would have to.
	verify.That(t, median <= 50*time.Millisecond+2*own, "the last session ended %v after Consul's answer, want 50ms and at most twice the %v that an answer takes", median, own)
}

// whenLeaderEnds returns a channel that gets the time at which a blocking query of its own says
// that a key no longer names a leader.
func whenLeaderEnds(ctx context.Context, t *testing.T, client *api.Client, key, leader string) <-chan time.Time {
	t.Helper()
	pair, meta, err := client.KV().Get(key, nil)
	verify.Require(t, err == nil && pair != nil && string(pair.Value) == leader, "%s: %+v, %v, want %s", key, pair, err, leader)
	at := make(chan time.Time, 1)
	go func() {
		defer close(at)
		for index := meta.LastIndex; ; index = meta.LastIndex {
			if pair, meta, err = client.KV().Get(key, (&api.QueryOptions{WaitIndex: index}).WithContext(ctx)); err != nil {
				return
			}
			if pair == nil || string(pair.Value) != leader {
				at <- time.Now()
				return
			}
		}
	}()
	return at
}

// An observed server gets what comes to port, and counts it.
type observed struct {
	port        int
	open        atomic.Int64
	came, bytes atomic.Int64
	ended       atomic.Int64 // when the last connection from sluice did, in Unix time
	last        string       // what it had seen when its last session ended
}

func (o *observed) seen() string {
	return fmt.Sprintf("%d connections with %d bytes", o.came.Load(), o.bytes.Load())
}

func observe(t *testing.T, server string) *observed {
	o := new(observed)
	o.last = o.seen()
	l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	o.port = l.Addr().(*net.TCPAddr).Port
	listen(t, l, func(from net.Conn) {
		o.open.Add(1)
		defer o.open.Add(-1)
		o.came.Add(1)
		to, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		defer to.Close()
		go io.Copy(from, to)
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			o.bytes.Add(int64(n))
			if err == nil {
				_, err = to.Write(buffer[:n])
			}
			if err != nil {
				o.ended.Store(time.Now().UnixNano())
				return
			}
		}
	})
	return o
}

// startPostgres runs a PostgreSQL server of its own until t ends, and returns its address.
func startPostgres(t *testing.T, programs, name string) string {
	t.Helper()
	directory := verify.Result(os.MkdirTemp("", "sluice-postgres-")).Must(t)
	t.Cleanup(func() { os.RemoveAll(directory) })
	attributes := new(syscall.SysProcAttr)
	if os.Getuid() == 0 { // the server refuses to run as root
		as := verify.Result(user.Lookup("postgres")).Must(t)
		uid, gid := verify.Result(strconv.Atoi(as.Uid)).Must(t), verify.Result(strconv.Atoi(as.Gid)).Must(t)
		verify.NoError(t, os.Chown(directory, uid, gid))
		attributes.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	data, port := filepath.Join(directory, "data"), consultest.ReservePort(t)
	command := func(program string, args ...string) *exec.Cmd {
		c := exec.Command(filepath.Join(programs, program), args...)
		c.Dir, c.SysProcAttr = directory, attributes
		return c
	}
	out, err := command("initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "--no-instructions").CombinedOutput()
	verify.Require(t, err == nil, "initdb: %v\n%s", err, out)
	server := command("postgres", "-D", data, "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-k", directory, "-F")
	log := verify.Result(os.Create(filepath.Join(t.TempDir(), "log"))).Must(t)
	server.Stdout, server.Stderr = log, log
	verify.NoError(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGQUIT)
		_ = server.Wait()
	})
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	consultest.Await(t, "PostgreSQL "+name, func() bool {
		conn, err := login(t.Context(), address)
		if err != nil {
			return false
		}
		defer conn.Close()
		return query(conn, "CREATE TABLE IF NOT EXISTS rows (at timestamptz)") == nil
	})
	return address
}

// write writes rows through sluice until the session ends, and counts them.
func write(ctx context.Context, address string, written *atomic.Int64) error {
	conn, err := login(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for {
		if err := query(conn, "INSERT INTO rows VALUES (now())"); err != nil {
			return err
		}
		written.Add(1)
	}
}

// login begins a session, by version 3 of PostgreSQL's protocol.
func login(ctx context.Context, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	hello := append(binary.BigEndian.AppendUint32(nil, 3<<16), "user\x00postgres\x00database\x00postgres\x00\x00"...)
	if _, err = conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(hello)+4)), hello...)); err == nil {
		err = untilReady(conn)
	}
	if err != nil {
		conn.Close()
	}
	return conn, err
}

func query(conn net.Conn, text string) error {
	message := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(len(text)+5))
	if _, err := conn.Write(append(append(message, text...), 0)); err != nil {
		return err
	}
	return untilReady(conn)
}

// untilReady reads messages until the server is ready for a query.
func untilReady(conn net.Conn) error {
	var failed error
	for {
		var head [5]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return err
		}
		body := make([]byte, max(4, binary.BigEndian.Uint32(head[1:]))-4)
		if _, err := io.ReadFull(conn, body); err != nil {
			return err
		}
		switch head[0] {
		case 'E':
			failed = errors.New(string(body))
		case 'Z':
			return failed
		}
	}
}
