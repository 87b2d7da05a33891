//go:build linux

package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/test/verify"
)

func TestRelayCountsQueriesOfBothKinds(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.String()) }))
	defer web.Close()
	names := verify.Result(net.ListenPacket("udp", "127.0.0.1:0")).Must(t)
	defer names.Close()
	go func() { // echoes the question
		packet := make([]byte, 512)
		for {
			n, from, err := names.ReadFrom(packet)
			if err != nil {
				return
			}
			names.WriteTo(packet[:n], from)
		}
	}()
	r := verify.Result(startRelay(consulAddress{HTTP: strings.TrimPrefix(web.URL, "http://"), DNS: names.LocalAddr().String()})).Must(t)
	defer r.close()
	for range 2 {
		response := verify.Result(http.Get("http://" + r.address().HTTP + "/v1/health/service/star?index=7")).Must(t)
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		verify.That(t, err == nil && string(body) == "/v1/health/service/star?index=7", "answer %q, %v", body, err)
	}
	conn := verify.Result(net.Dial("udp", r.address().DNS)).Must(t)
	defer conn.Close()
	for _, question := range []string{"one", "two", "three"} {
		verify.Result(io.WriteString(conn, question)).Must(t)
		answer := make([]byte, 512)
		verify.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
		n, err := conn.Read(answer)
		verify.That(t, err == nil && string(answer[:n]) == question, "answer %q, %v; want %q", answer[:n], err, question)
	}
	got := r.queries.Load()
	verify.That(t, got == 5, "counted %d queries, want 5", got)
}
