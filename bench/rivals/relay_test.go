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
)

func TestRelayCountsQueriesOfBothKinds(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.String()) }))
	defer web.Close()
	names, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
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
	r, err := startRelay(consulAddress{HTTP: strings.TrimPrefix(web.URL, "http://"), DNS: names.LocalAddr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for range 2 {
		response, err := http.Get("http://" + r.address().HTTP + "/v1/health/service/star?index=7")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || string(body) != "/v1/health/service/star?index=7" {
			t.Errorf("answer %q, %v", body, err)
		}
	}
	conn, err := net.Dial("udp", r.address().DNS)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, question := range []string{"one", "two", "three"} {
		if _, err := io.WriteString(conn, question); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 512)
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(answer); err != nil || string(answer[:n]) != question {
			t.Errorf("answer %q, %v; want %q", answer[:n], err, question)
		}
	}
	if got := r.queries.Load(); got != 5 {
		t.Errorf("counted %d queries, want 5", got)
	}
}
