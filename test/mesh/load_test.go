package mesh

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"sluice/test/sluicetest"
	"sluice/test/verify"
)

// A load sends requests of several kinds through sluice until stop.
type load struct {
	url     string
	client  *http.Client
	grpc    *grpc.ClientConn
	body    []byte
	end     context.CancelFunc
	running sync.WaitGroup
	sent    atomic.Int64

	// mu guards the fields below.
	mu     sync.Mutex
	failed []string
}

// startLoad begins 200 requests a second: GET and POST to /web, calls of gRPC, and a message of a
// WebSocket to /steady, which is open all the while.
func startLoad(t *testing.T, s *sluicetest.Sluice) *load {
	t.Helper()
	conn := verify.Result(grpc.NewClient("passthrough:///"+s.Address("web"), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())).Must(t)
	l := &load{url: s.URL(), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}, grpc: conn, body: bytes.Repeat([]byte("0123456789"), 1000)}
	socket, _, err := websocket.Dial(t.Context(), strings.Replace(l.url, "http", "ws", 1)+"/steady", nil)
	verify.NoError(t, err)
	ctx, end := context.WithCancel(t.Context())
	l.end = end
	l.repeat(ctx, 100, "GET", func(context.Context) error { return l.exchange(http.MethodGet, nil, "web-") })
	l.repeat(ctx, 60, "POST", func(context.Context) error { return l.exchange(http.MethodPost, l.body, string(l.body)) })
	l.repeat(ctx, 30, "gRPC", func(context.Context) error {
		_, err := grpc_health_v1.NewHealthClient(conn).Check(context.Background(), new(grpc_health_v1.HealthCheckRequest))
		return err
	})
	l.running.Go(func() { // the messages of a stream have an order
		defer socket.CloseNow()
		l.every(ctx, 10, func() {
			err := socket.Write(context.Background(), websocket.MessageText, l.body)
			var got []byte
			if err == nil {
				_, got, err = socket.Read(context.Background())
			}
			if err == nil && !bytes.Equal(got, l.body) {
				err = fmt.Errorf("another message of %d bytes", len(got))
			}
			l.note("WebSocket", err)
		})
	})
	return l
}

// repeat calls send so many times a second until ctx ends, also if earlier calls have not ended.
func (l *load) repeat(ctx context.Context, perSecond int, kind string, send func(context.Context) error) {
	l.running.Go(func() {
		l.every(ctx, perSecond, func() { l.running.Go(func() { l.note(kind, send(ctx)) }) })
	})
}

func (l *load) every(ctx context.Context, perSecond int, do func()) {
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do()
		}
	}
}

func (l *load) note(kind string, err error) {
	l.sent.Add(1)
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, fmt.Sprintf("%s %s: %v", time.Now().Format("15:04:05.000"), kind, err))
}

// exchange sends a request to /web, and checks how the answer begins.
func (l *load) exchange(method string, body []byte, want string) error {
	request, err := http.NewRequest(method, l.url+"/web", bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := l.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("%s (%s): %.200s", response.Status, response.Header.Get("X-Sluice-Reason"), got)
	case !strings.HasPrefix(string(got), want):
		return fmt.Errorf("answer %.80q", got)
	}
	return nil
}

// stop ends the load. No request may have failed.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.end()
	l.running.Wait()
	l.client.CloseIdleConnections()
	l.grpc.Close()
	t.Logf("%d requests", l.sent.Load())
	verify.That(t, len(l.failed) == 0, "%d failed:\n%s", len(l.failed), strings.Join(l.failed[:min(len(l.failed), 10)], "\n"))
}
