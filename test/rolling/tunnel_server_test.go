//go:build unix

package rolling

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// A message of a tunnel is one line: the id of the request, a space and a payload. answerTunnel
// returns the answer of an instance: its name, the id, and the length and the checksum of the message.
func answerTunnel(instance string, message []byte) string {
	id, _, _ := bytes.Cut(message, []byte(" "))
	return fmt.Sprintf("%s %s %d %d", instance, id, len(message), crc32.ChecksumIEEE(message))
}

// webSocketServer answers each message.
type webSocketServer struct {
	instance
	listener *trackedListener
	server   *http.Server
	running  sync.WaitGroup // the server, and the WebSockets, which it does not know
}

func startWebSocket(i instance) (server, error) {
	listener, err := listenTracked()
	if err != nil {
		return nil, err
	}
	s := &webSocketServer{instance: i, listener: listener}
	s.server = &http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0)}
	s.running.Go(func() { _ = s.server.Serve(listener) }) // until stop or reset
	return s, nil
}

func (s *webSocketServer) address() string { return s.listener.Addr().String() }

func (s *webSocketServer) stop() {
	_ = s.server.Shutdown(context.Background()) // the listener may be closed already
	s.running.Wait()
}

func (s *webSocketServer) reset() {
	s.listener.reset()
	_ = s.server.Close()
	s.running.Wait()
}

// ServeHTTP implements http.Handler.
func (s *webSocketServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.URL.Path[1:])
	if err != nil {
		return // a check
	}
	s.running.Add(1)
	defer s.running.Done()
	s.ledger.note(s.name, id)
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	for {
		kind, message, err := conn.Read(context.Background())
		if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
			s.ledger.noteAnswer(id)
		}
		if err != nil || !s.do() {
			return
		}
		if err := conn.Write(context.Background(), kind, []byte(answerTunnel(s.name, message))); err != nil {
			return
		}
	}
}

// streamServer answers each line of a TCP connection.
type streamServer struct {
	instance
	listener *trackedListener
	running  sync.WaitGroup
}

func startStream(i instance) (server, error) {
	listener, err := listenTracked()
	if err != nil {
		return nil, err
	}
	s := &streamServer{instance: i, listener: listener}
	s.running.Go(func() {
		defer listener.Close()
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.running.Go(func() { s.serve(conn) })
		}
	})
	return s, nil
}

func (s *streamServer) address() string { return s.listener.Addr().String() }

func (s *streamServer) stop() {
	s.listener.SetDeadline(time.Now().Add(lastAccepts))
	s.running.Wait()
}

func (s *streamServer) reset() {
	s.listener.reset()
	s.running.Wait()
}

func (s *streamServer) serve(conn net.Conn) {
	defer conn.Close()
	for lines, first := bufio.NewScanner(conn), true; lines.Scan(); first = false {
		if digits, _, _ := bytes.Cut(lines.Bytes(), []byte(" ")); first {
			if id, err := strconv.Atoi(string(digits)); err == nil {
				s.ledger.note(s.name, id)
			}
		}
		if !s.do() {
			return
		}
		if _, err := fmt.Fprintln(conn, answerTunnel(s.name, lines.Bytes())); err != nil {
			return
		}
	}
}
