//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// perSecond is the rate of a load.
	perSecond = 200
	// clientPatience is the timeout of the client.
	clientPatience = 5 * time.Second
)

// sample is the result of a request.
type sample struct {
	Due      time.Time     // scheduled time
	Late     time.Duration // delay of the sending
	Latency  time.Duration // from Due to the end of the answer
	Instance string        // that responded
	Failure  string        // "" for a complete response with status 2xx
}

// load sends GETs at a constant rate over persistent connections, also if earlier ones have
// not ended. Like a browser, the client of net/http repeats a GET if a reused connection is
// closed (RFC 9112, section 9.3.1). There are no other retries.
type load struct {
	url       string
	transport *http.Transport
	client    *http.Client
	cancel    context.CancelFunc
	running   sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	samples []sample
	first   map[string]time.Time // time of the first complete response of an instance
}

func startLoad(url string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	l := &load{
		url: url, transport: transport, cancel: cancel, first: make(map[string]time.Time),
		client: &http.Client{Transport: transport, Timeout: clientPatience},
	}
	l.running.Go(func() {
		start := time.Now()
		timer := time.NewTimer(0)
		defer timer.Stop()
		for n := 0; ; n++ {
			due := start.Add(time.Duration(n) * time.Second / perSecond)
			timer.Reset(time.Until(due))
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			l.running.Go(func() { l.one(due) })
		}
	})
	return l
}

// stop ends the load, waits for the requests in flight, and returns all results.
func (l *load) stop() []sample {
	l.cancel()
	l.running.Wait()
	l.transport.CloseIdleConnections()
	return l.samples
}

func (l *load) one(due time.Time) {
	late := time.Since(due)
	instance, failure := l.ask()
	end := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples = append(l.samples, sample{due, late, end.Sub(due), instance, failure})
	if failure == "" && l.first[instance].IsZero() {
		l.first[instance] = end
	}
}

func (l *load) ask() (instance, failure string) {
	response, err := l.client.Get(l.url)
	if err != nil {
		return "", failureOf(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return "", failureOf(err)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return "", strconv.Itoa(response.StatusCode)
	}
	return response.Header.Get(instanceField), ""
}

// failureOf returns a short reason for an error.
func failureOf(err error) string {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "cut"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	default:
		return cmp.Or(err.Error(), "unknown")
	}
}

// firstAnswer returns the time of the first complete response of an instance, or the zero time.
func (l *load) firstAnswer(instance string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first[instance]
}

// allAnswer reports whether all instances have answered since a time, and no request has failed.
func (l *load) allAnswer(since time.Time, instances []*instance) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	answered := make(map[string]bool)
	for n := len(l.samples) - 1; n >= 0; n-- { // in the order of their ends, which is close to the order of Due
		s := l.samples[n]
		if s.Due.Add(s.Latency).Before(since) {
			break
		}
		if s.Failure != "" {
			return false
		}
		answered[s.Instance] = true
	}
	for _, i := range instances {
		if !answered[i.id] {
			return false
		}
	}
	return len(answered) > 0
}
