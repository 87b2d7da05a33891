package h3load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"sluice/test/testcert"
	"sluice/test/verify"
)

const bodyBytes = 110

// serve starts a server of another implementation, and returns its address.
func serve(t *testing.T) string {
	t.Helper()
	cert, key := testcert.PEM("localhost")
	pair := verify.Result(tls.X509KeyPair(cert, key)).Must(t)
	socket := verify.Result(net.ListenUDP("udp", &net.UDPAddr{IP: loopback})).Must(t)
	server := &http3.Server{
		TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/refused":
				w.WriteHeader(http.StatusServiceUnavailable)
			case "/short":
				_, _ = w.Write(make([]byte, bodyBytes-1))
				return
			case "/cut":
				w.Header().Set("Content-Length", "110")
				_, _ = w.Write(make([]byte, bodyBytes/2))
				panic(http.ErrAbortHandler)
			case "/long":
				_, _ = io.CopyN(w, zeros{}, 5<<20)
				return
			}
			_, _ = w.Write(make([]byte, bodyBytes))
		}),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(socket) }()
	t.Cleanup(func() {
		_ = server.Close()
		_ = socket.Close()
		<-served
	})
	return socket.LocalAddr().String()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

const short = 200 * time.Millisecond

func TestLoadCountsWhatItSees(t *testing.T) {
	server := serve(t)
	for name, test := range map[string]struct {
		path    string
		body    int64
		streams int
		of      func(Result) int64
	}{
		"right":           {"/", bodyBytes, 3, func(r Result) int64 { return r.Requests }},
		"new connections": {"/", bodyBytes, 0, func(r Result) int64 { return r.Requests }},
		"long":            {"/long", 5 << 20, 1, func(r Result) int64 { return r.Requests }},
		"other status":    {"/refused", bodyBytes, 1, func(r Result) int64 { return r.Wrong }},
		"other length":    {"/short", bodyBytes, 1, func(r Result) int64 { return r.Wrong }},
		"cut":             {"/cut", bodyBytes, 1, func(r Result) int64 { return r.Failed }},
	} {
		t.Run(name, func(t *testing.T) {
			l := Load{Server: server, Path: test.path, Body: test.body, Conns: 2, Streams: test.streams}
			r := verify.Result(l.Run(t.Context(), short)).Must(t)
			all := r.Requests + r.Wrong + r.Failed + r.Late
			verify.That(t, all > 0 && test.of(r) == all, "counts: %d right, %d wrong, %d failed, %d late; reason %v", r.Requests, r.Wrong, r.Failed, r.Late, r.Reason)
			verify.Equal(t, int64(len(r.Times)), r.Requests, "times of right answers")
			verify.That(t, (r.Reason == nil) == (r.Requests == all), "reason %v", r.Reason)
			verify.That(t, r.Took >= short, "took %v", r.Took)
		})
	}
}

func TestIdleConnectionsStayOpen(t *testing.T) {
	l := Load{Server: serve(t), Path: "/", Body: bodyBytes}
	idle, err := l.OpenIdle(t.Context(), 40)
	verify.NoError(t, err)
	verify.Equal(t, idle.Open(), 40, "open connections")
	verify.NoError(t, idle.Close())
	verify.Equal(t, idle.Open(), 0, "open connections after the end")
	l.Path = "/refused"
	idle, err = l.OpenIdle(t.Context(), 40)
	verify.That(t, err != nil && strings.Contains(err.Error(), "503"), "error %v", err)
	verify.NoError(t, idle.Close())
}

func TestNobodyAnswers(t *testing.T) {
	socket := verify.Result(net.ListenUDP("udp", &net.UDPAddr{IP: loopback})).Must(t)
	defer socket.Close()
	c := verify.Result(newClient(loopback, socket.LocalAddr().String())).Must(t)
	defer c.close()
	ctx, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	_, err := c.dial(ctx)
	var r Result
	r.count(time.Now(), err)
	verify.Equal(t, r.Late, 1, "late (%v)", err)
}

// Frames that are not known, interim answers and trailers are no part of an answer.
func TestAnswers(t *testing.T) {
	// A literal, of :status.
	status := func(s string) string { return "\x00\x00\x5f\x09" + string(rune(len(s))) + s }
	frame := func(kind byte, payload string) string {
		return string([]byte{kind, byte(len(payload))}) + payload
	}
	ok, body := frame(frameHeaders, "\x00\x00\xd9"), frame(frameData, "12345")
	for name, test := range map[string]struct {
		answer string
		right  bool
	}{
		"whole":            {ok + body, true},
		"two parts":        {ok + frame(frameData, "123") + frame(frameData, "45"), true},
		"literal status":   {frame(frameHeaders, status("204")) + body, true},
		"interim":          {frame(frameHeaders, status("103")) + ok + body, true},
		"trailers":         {ok + body + frame(frameHeaders, "\x00\x00"), true},
		"unknown":          {frame(0x21, "?") + ok + body, true},
		"other status":     {frame(frameHeaders, status("404")) + body, false},
		"only interim":     {frame(frameHeaders, status("103")), false},
		"short":            {ok + frame(frameData, "1234"), false},
		"long":             {ok + body + body, false},
		"cut in a body":    {ok + body[:4], false},
		"cut in a head":    {ok[:3], false},
		"cut in a header":  {ok + body[:1], false},
		"without a status": {frame(frameHeaders, "\x00\x00") + body, false},
		"empty":            {"", false},
	} {
		r := request{body: 5}
		err := r.readAnswer(bufio.NewReader(bytes.NewReader([]byte(test.answer))))
		verify.That(t, (err == nil) == test.right, "%s: %v", name, err)
		verify.That(t, err != io.EOF, "%s: ends like a whole answer", name)
	}
}
