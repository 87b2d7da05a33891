package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// member is a member of the cluster, which acknowledges each row.
type member struct {
	name     string
	listener net.Listener
	serving  sync.WaitGroup

	open    atomic.Int64
	ended   atomic.Int64 // when the last session did, in Unix time
	demoted atomic.Bool  // nothing may come
	late    atomic.Int64 // rows that came nevertheless
}

func startMember(name string) (*member, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &member{name: name, listener: l}
	m.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			m.serving.Go(func() { m.serve(conn) })
		}
	})
	return m, nil
}

func (m *member) serve(conn net.Conn) {
	m.open.Add(1)
	defer m.open.Add(-1)
	defer conn.Close()
	for in := bufio.NewReader(conn); ; {
		row, err := in.ReadString('\n')
		if row != "" && m.demoted.Load() {
			m.late.Add(1)
		}
		if err != nil {
			m.ended.Store(time.Now().UnixNano())
			return
		}
		_, _ = io.WriteString(conn, row)
	}
}

func (m *member) port() int { return m.listener.Addr().(*net.TCPAddr).Port }

func (m *member) stop() error {
	err := m.listener.Close()
	m.serving.Wait()
	return err
}

// writing is what the writers do.
type writing struct {
	rows    atomic.Int64 // that were acknowledged
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func startWriting(address string) *writing {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writing{cancel: cancel}
	for range writers {
		w.running.Go(func() {
			for ctx.Err() == nil {
				w.write(ctx, address)
			}
		})
	}
	return w
}

// write writes rows until the session ends.
func (w *writing) write(ctx context.Context, address string) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for in := bufio.NewReader(conn); ; <-pace.C {
		if _, err := fmt.Fprintln(conn, "row"); err != nil {
			return
		}
		if _, err := in.ReadString('\n'); err != nil {
			return
		}
		w.rows.Add(1)
	}
}

func (w *writing) stop() error {
	w.cancel()
	w.running.Wait()
	return nil
}
