package packets

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"sluice/test/testcert"
	"sluice/test/verify"
)

type generator struct{ *Socket }

func (g generator) GenerateConnectionID() (quic.ConnectionID, error) {
	id := g.NewID()
	return quic.ConnectionIDFromBytes(id[:]), nil
}

func (generator) ConnectionIDLen() int { return IDLen }

// serveQUIC answers each stream of connections to s with the name of the process and what came.
func serveQUIC(t *testing.T, s *Socket, name byte, config *tls.Config, retry bool) {
	t.Helper()
	transport := &quic.Transport{Conn: s, ConnectionIDGenerator: generator{s}, VerifySourceAddress: func(net.Addr) bool { return retry }}
	listener := verify.Result(transport.Listen(config, nil)).Must(t)
	t.Cleanup(func() { transport.Close() })
	answer := func(conn *quic.Conn) {
		for {
			stream, err := conn.AcceptStream(context.Background())
			if err != nil {
				return
			}
			go func() {
				body, err := io.ReadAll(stream)
				if err == nil {
					// The client sees an error.
					_, _ = stream.Write(append([]byte{name}, body...))
				}
				stream.Close()
			}()
		}
	}
	go func() {
		for {
			conn, err := listener.Accept(context.Background())
			if err != nil {
				return
			}
			go answer(conn)
		}
	}()
}

// ask returns the name of the process that answers on a new stream.
func ask(ctx context.Context, conn *quic.Conn, body []byte) (name byte, err error) {
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return 0, err
	}
	_ = stream.SetDeadline(time.Now().Add(20 * time.Second)) // it never fails
	if _, err = stream.Write(body); err != nil {
		return 0, err
	}
	stream.Close()
	answer, err := io.ReadAll(stream)
	if err == nil && (len(answer) == 0 || !bytes.Equal(answer[1:], body)) {
		err = fmt.Errorf("an answer of %d bytes to %d", len(answer), len(body))
	}
	if err != nil {
		return 0, err
	}
	return answer[0], nil
}

// A client that asks all the time keeps its connection, and others connect all the time, while a
// new process replaces the old one: no request and no handshake fails, also with Retry. In the end
// new connections go to the new process.
func TestConnectionsOutliveTheOldProcess(t *testing.T) {
	for name, retry := range map[string]bool{"plain": false, "with Retry": true} {
		t.Run(name, func(t *testing.T) {
			pair := verify.Result(tls.X509KeyPair(testcert.PEM("localhost"))).Must(t)
			config := &tls.Config{NextProtos: []string{"test"}, Certificates: []tls.Certificate{pair}}
			trust := &tls.Config{NextProtos: []string{"test"}, InsecureSkipVerify: true}
			ctx := t.Context()
			old := open(t)
			serveQUIC(t, old, 'o', config, retry)
			dial := func() (*quic.Conn, error) { return quic.DialAddr(ctx, old.LocalAddr().String(), trust, nil) }
			body := bytes.Repeat([]byte("body"), 5000)

			// Requests on the first connection, and connections to the new process.
			var asked, fresh atomic.Int64
			var clients sync.WaitGroup
			first := verify.Result(dial()).Must(t)
			done, happened := make(chan struct{}), make(chan struct{}, 1)
			repeat := func(f func() error) {
				clients.Go(func() {
					for {
						select {
						case <-done:
							return
						default:
						}
						err := f()
						select {
						case happened <- struct{}{}:
						default:
						}
						if err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			repeat(func() error {
				name, err := ask(ctx, first, body)
				asked.Add(1)
				if err == nil && name != 'o' {
					err = errors.New("the new process answers on an old connection")
				}
				return err
			})
			for range 2 {
				repeat(func() error {
					changed := fresh.Load() > 0
					conn, err := dial()
					if err != nil {
						return err
					}
					defer conn.CloseWithError(0, "")
					name, err := ask(ctx, conn, body[:3])
					if name == 'n' {
						fresh.Add(1)
					} else if err == nil && changed {
						err = errors.New("a new connection goes to the old process")
					}
					return err
				})
			}
			await := func(n *atomic.Int64, more int64) {
				for want := n.Load() + more; n.Load() < want && !t.Failed(); {
					select {
					case <-happened:
					case <-time.After(30 * time.Second):
						t.Fatal("nothing happens")
					}
				}
			}
			await(&asked, 30)
			next, o := inherit(t, old)
			serveQUIC(t, next, 'n', config, retry)
			await(&asked, 30)
			verify.Equal(t, fresh.Load(), 0, "connections to the new process before it serves")
			o.Accepted()
			await(&fresh, 20)
			await(&asked, 100)
			close(done)
			clients.Wait()
			counts := next.Counts()
			verify.That(t, counts.Passed > 100, "%+v", counts)
			t.Logf("%d requests on the first connection, %d connections to the new process, %+v", asked.Load(), fresh.Load(), counts)
		})
	}
}
