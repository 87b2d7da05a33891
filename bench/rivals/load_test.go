//go:build linux

package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"sluice/test/verify"
)

func TestFailuresAreToldApart(t *testing.T) {
	timeout, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-timeout.Done()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/503":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("half"))
			panic(http.ErrAbortHandler)
		case "/reset":
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set(instanceField, "star-1")
		}
	}))
	defer server.Close()
	for path, want := range map[string]string{"/503": "503", "/cut": "cut", "/reset": "cut", "/": ""} {
		l := &load{url: server.URL + path, client: server.Client()}
		instance, failure := l.ask()
		if failure != want || (failure == "") != (instance == "star-1") {
			t.Errorf("%s: failure %q, instance %q; want failure %q", path, failure, instance, want)
		}
	}
	verify.Equal(t, failureOf(timeout.Err()), "timeout", "%v", timeout.Err())
	closed := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	address := closed.Addr().String()
	closed.Close()
	l := &load{url: "http://" + address, client: http.DefaultClient}
	_, failure := l.ask()
	verify.That(t, failure == "refused", "without a listener: %q", failure)
}

func TestCalmNeedsAnAnswerOfEveryInstanceAndNoFailure(t *testing.T) {
	instances := []*instance{{id: "star-1"}, {id: "star-2"}}
	answer := func(end int, instance, failure string) sample {
		return sample{Due: at(end - 10), Latency: 10 * time.Millisecond, Instance: instance, Failure: failure}
	}
	for name, c := range map[string]struct {
		samples []sample
		answers bool
	}{
		"nothing was answered":   {nil, false},
		"both answered":          {[]sample{answer(100, "star-1", ""), answer(110, "star-2", "")}, true},
		"one answered too early": {[]sample{answer(90, "star-1", ""), answer(110, "star-2", "")}, false},
		"one failed":             {[]sample{answer(100, "star-1", ""), answer(105, "", "502"), answer(110, "star-2", "")}, false},
		"one failed too early":   {[]sample{answer(90, "", "502"), answer(100, "star-1", ""), answer(110, "star-2", "")}, true},
		"a third one answered":   {[]sample{answer(100, "star-1", ""), answer(105, "star-3", ""), answer(110, "star-2", "")}, true},
	} {
		l := &load{samples: c.samples}
		verify.Equal(t, l.allAnswer(at(100), instances), c.answers, "%s: allAnswer", name)
	}
}

func TestLoadNotesTheFirstAnswerOfAnInstance(t *testing.T) {
	var sent atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if sent.Add(1) > 5 {
			w.Header().Set(instanceField, "new")
		}
	}))
	defer server.Close()
	begin := time.Now()
	l := startLoad(server.URL)
	for l.firstAnswer("new").IsZero() {
		verify.Require(t, time.Since(begin) <= patience, "no answer of the new instance was noted")
		<-time.After(time.Millisecond)
	}
	samples := l.stop()
	first := l.firstAnswer("new")
	verify.That(t, !first.Before(begin) && !first.After(time.Now()), "first answer at %v", first)
	verify.That(t, int64(len(samples)) == sent.Load(), "%d samples of %d requests", len(samples), sent.Load())
}
