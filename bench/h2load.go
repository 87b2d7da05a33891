//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// runH2 puts the load of w on address for d with h2load.
func (l *load) runH2(ctx context.Context, w workload, address string, d time.Duration) (loadResult, error) {
	args := []string{"h2load", "-c", strconv.Itoa(w.conns), "-m", strconv.Itoa(streamsPerConn),
		"-D", strconv.Itoa(int(d.Seconds())), "--groups=X25519", "--tls13-ciphers=TLS_AES_128_GCM_SHA256"}
	if w.grpc != grpcNone {
		args = append(args, "-d", filepath.Join(l.dir, "grpc-request"), "-H", "content-type: application/grpc", "-H", "te: trailers")
	}
	out, err := l.command(ctx, append(args, w.url(address))...).CombinedOutput()
	if err != nil {
		return loadResult{}, fmt.Errorf("h2load: %w\n%s", err, out)
	}
	r, err := parseH2load(string(out))
	if err != nil {
		return loadResult{}, fmt.Errorf("h2load: %w\n%s", err, out)
	}
	// An error of gRPC has status 200, and no message.
	if complete := r.Bytes / w.answerBytes(); complete < r.Requests {
		r.Status = max(r.Status, r.Requests-complete)
	}
	r.Took = d
	return r, nil
}

// answerBytes is the number of bytes of a response's body.
func (w workload) answerBytes() int64 {
	if w.grpc != grpcNone {
		return grpcPrefixBytes + smallBytes
	}
	return smallBytes
}

var (
	h2loadRequests = regexp.MustCompile(`requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	h2loadStatus   = regexp.MustCompile(`status codes: (\d+) 2xx, (\d+) 3xx`)
	h2loadTraffic  = regexp.MustCompile(`traffic: .*\((\d+)\) data`)
)

// parseH2load reads what h2load prints at its end. It does not tell percentiles.
func parseH2load(output string) (loadResult, error) {
	var numbers []int64
	for _, line := range []*regexp.Regexp{h2loadRequests, h2loadStatus, h2loadTraffic} {
		match := line.FindStringSubmatch(output)
		if match == nil {
			return loadResult{}, errors.New("no result line")
		}
		for _, text := range match[1:] {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return loadResult{}, err
			}
			numbers = append(numbers, n)
		}
	}
	done, failed, errored, timeouts, ok := numbers[0], numbers[2], numbers[3], numbers[4], numbers[5]+numbers[6]
	r := loadResult{Requests: done, Bytes: numbers[7], Failed: errored, Status: failed - errored, Timeouts: timeouts}
	if r.Status += max(0, done-failed-ok); done == 0 {
		return r, errNothing
	}
	return r, nil
}
