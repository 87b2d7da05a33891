//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// idle is the memory of one proxy around a workload of idle connections.
type idle struct {
	Connections int   `json:"connections"`
	Before      int64 `json:"before_bytes"` // resident, at rest after one warm-up second of load
	During      int64 `json:"during_bytes"` // resident, all connections open and silent

	// Of programs in Go, with HTTP/3; else they are 0.
	GoBefore goHeap `json:"go_before,omitzero"`
	GoDuring goHeap `json:"go_during,omitzero"`
}

// perConnection is the KiB that each connection adds.
func (i idle) perConnection() float64 {
	return float64(i.During-i.Before) / 1024 / float64(i.Connections)
}

// heapPerConnection and stacksPerConnection are the parts of it that Go's heap and its stacks add.
func (i idle) heapPerConnection() float64 {
	return float64(i.GoDuring.Heap-i.GoBefore.Heap) / 1024 / float64(i.Connections)
}

func (i idle) stacksPerConnection() float64 {
	return float64(i.GoDuring.Stacks-i.GoBefore.Stacks) / 1024 / float64(i.Connections)
}

// settle is how long a proxy has no connections before memory is read, and settleIdle how long
// connections are idle, so that proxies have released their buffers. With HTTP/3 they end after
// 30 s.
const settle, settleIdle, settleIdleH3 = 10 * time.Second, 40 * time.Second, 20 * time.Second

// runIdle measures one contender after the other, once each.
func (b *bench) runIdle(ctx context.Context, w workload) (result, error) {
	r := result{Workload: w.name, About: w.about, work: w}
	for _, c := range b.contenders {
		if w.skips(c) {
			continue
		}
		p, err := b.start(ctx, c, w)
		if err != nil {
			return r, err
		}
		i, err := b.measureIdle(ctx, w, p)
		p.process.stop()
		if err != nil {
			return r, fmt.Errorf("%s: %w\n%s", c.name, err, p.process.output)
		}
		r.Series = append(r.Series, series{Proxy: c.name, Idle: &i})
		fmt.Fprintf(b.progress, "%-10s %-14s %6.1f MiB before, %6.1f MiB with %d idle connections\n",
			w.name, c.name, mebibytes(i.Before), mebibytes(i.During), i.Connections)
	}
	return r, nil
}

func (b *bench) measureIdle(ctx context.Context, w workload, p *running) (idle, error) {
	warm := w
	warm.conns = 64
	if err := b.load.warmUp(ctx, warm, p.settings.Listen); err != nil {
		return idle{}, err
	}
	if w.http3() {
		return measureIdleH3(ctx, w, p)
	}
	before, err := readSettled(ctx, p.process.PID(), settle)
	if err != nil {
		return idle{}, err
	}
	conns, err := openIdle(ctx, min(w.conns, int(b.files)-2000), p.settings.Listen, w)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	if err != nil {
		return idle{}, err
	}
	during, err := readSettled(ctx, p.process.PID(), settleIdle)
	return idle{Connections: len(conns), Before: before, During: during}, err
}

// measureIdleH3 also reads how large Go's heap and stacks are.
func measureIdleH3(ctx context.Context, w workload, p *running) (i idle, err error) {
	if i.Before, err = readSettled(ctx, p.process.PID(), settle); err != nil {
		return i, err
	}
	if i.GoBefore, err = readGoHeap(ctx, p.settings.Admin); err != nil {
		return i, err
	}
	conns, err := w.h3(p.settings.Listen).OpenIdle(ctx, w.conns)
	if err != nil {
		conns.Close()
		return i, fmt.Errorf("open idle connections: %w", err)
	}
	defer conns.Close()
	if i.During, err = readSettled(ctx, p.process.PID(), settleIdleH3); err != nil {
		return i, err
	}
	if i.GoDuring, err = readGoHeap(ctx, p.settings.Admin); err != nil {
		return i, err
	}
	if i.Connections = conns.Open(); i.Connections < w.conns {
		return i, fmt.Errorf("%d of %d idle connections are open", i.Connections, w.conns)
	}
	return i, nil
}

// readSettled returns the resident bytes of a process after a time.
func readSettled(ctx context.Context, pid int, settle time.Duration) (int64, error) {
	timer := time.NewTimer(settle)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-timer.C:
		return readResident(pid)
	}
}

// openIdle opens n connections, sends one request of w on each and leaves them open.
// It returns those that it opened, also on an error.
func openIdle(ctx context.Context, n int, address string, w workload) ([]net.Conn, error) {
	const parallel, clients = 64, 16
	var (
		mu       sync.Mutex // guards conns and firstErr
		conns    []net.Conn
		firstErr error
		wg       sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	turns := make(chan int, n)
	for i := range n {
		turns <- i
	}
	close(turns)
	for range parallel {
		wg.Go(func() {
			for i := range turns {
				// Proxies limit the connections of a client, so there are several clients.
				client := net.IPv4(127, 0, 0, byte(2+i%clients))
				c, err := oneRequest(ctx, client, address, w)
				mu.Lock()
				if err == nil {
					conns = append(conns, c)
				} else if firstErr == nil {
					firstErr = fmt.Errorf("open idle connections: %w", err)
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return conns, firstErr
}

var loopback = net.IPv4(127, 0, 0, 1)

// oneRequest connects from the IP address client, sends a request of w, and returns
// the open connection.
func oneRequest(ctx context.Context, client net.IP, address string, w workload) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: client}}
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if w.tls {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true}) // writeCertificate has made the certificate
	}
	if err := exchange(c, address, w.path); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func exchange(c net.Conn, address, path string) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, address); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || response.ContentLength != smallBytes {
		return fmt.Errorf("answer %s with %d bytes", response.Status, response.ContentLength)
	}
	return c.SetDeadline(time.Time{})
}
