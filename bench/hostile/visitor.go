//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go/http3"

	"sluice/observe/wake"
	"sluice/test/http3test"
)

// patience is how long a handshake or an answer may take.
const patience = 10 * time.Second

// A visitor is a client that means no harm: it sends a request every 10 ms, from another address
// than the attacker's.
type visitor struct {
	end      context.CancelFunc
	work     sync.WaitGroup
	requests atomic.Int64
	failed   atomic.Int64
}

func startVisitor(ctx context.Context, address string, byUDP bool) *visitor {
	ctx, cancel := context.WithCancel(ctx)
	v := &visitor{end: cancel}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	if byUDP {
		client.Transport = &http3test.Client{Transport: http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	}
	v.work.Go(func() {
		wake.Every(ctx, 10*time.Millisecond, func() {
			response, err := client.Get("https://" + address + "/")
			if err == nil {
				_ = response.Body.Close()
			}
			if ctx.Err() != nil {
				return
			}
			if v.requests.Add(1); err != nil || response.StatusCode != http.StatusOK {
				v.failed.Add(1)
			}
		})
		client.CloseIdleConnections()
	})
	return v
}

// await waits until so many requests have been answered.
func (v *visitor) await(requests int64) error {
	for deadline := time.Now().Add(patience); v.requests.Load() < requests; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("the visitor gets no answers")
		}
	}
	if v.failed.Load() > 0 {
		return errors.New("a request of the visitor has failed before the attack")
	}
	return nil
}

// stop ends the requests, and returns how many there were and have failed.
func (v *visitor) stop() (requests, failed int) {
	v.end()
	v.work.Wait()
	return int(v.requests.Load()), int(v.failed.Load())
}
