//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"sync"
	"time"
)

// runDials sends each request of w on a new TLS connection, without a session of an earlier
// one, which wrk would resume.
func runDials(ctx context.Context, w workload, address string, d time.Duration) (loadResult, error) {
	config := &tls.Config{
		ServerName: "localhost", InsecureSkipVerify: true, // it would cost the load's CPU only
		MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519},
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var (
		mu     sync.Mutex // guards the variables below
		r      loadResult
		all    []time.Duration
		reason error
		wg     sync.WaitGroup
	)
	start := time.Now()
	// A dial fails at once from the end of ctx's time on, which may be before ctx itself has ended.
	over := func() bool { return ctx.Err() != nil || time.Since(start) >= d }
	for range w.conns {
		wg.Go(func() {
			for !over() {
				begin := time.Now()
				err := dialOnce(ctx, config, address, w.path)
				mu.Lock()
				switch {
				case err == nil:
					r.Requests++
					r.Bytes += smallBytes
					all = append(all, time.Since(begin))
				case !over():
					r.Failed++
					reason = err
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	r.Took = time.Since(start)
	if r.Requests == 0 {
		if reason != nil {
			return r, reason
		}
		return r, errNothing
	}
	r.setLatencies(all)
	return r, nil
}

func dialOnce(ctx context.Context, config *tls.Config, address, path string) error {
	dialer := tls.Dialer{Config: config}
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	return exchange(c, address, path)
}
