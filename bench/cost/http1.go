//go:build linux

package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// patience is how long a client waits for an answer.
const patience = 30 * time.Second

// http1Client sends the same request again and again on one connection.
type http1Client struct {
	net.Conn
	reader  *bufio.Reader
	request []byte
	answer  int64
}

func dialHTTP1(address string, w work) (*http1Client, error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	if w.tls {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // the certificate is new with each run
	}
	method, more := "GET", ""
	if w.body > 0 {
		method, more = "POST", fmt.Sprintf("Content-Length: %d\r\n", w.body)
	}
	if w.fresh {
		more += "Connection: close\r\n"
	}
	request := fmt.Sprintf("%s /some/path HTTP/1.1\r\nHost: %s\r\nUser-Agent: cost\r\n%s\r\n%s", method, address, more, strings.Repeat("x", w.body))
	return &http1Client{Conn: conn, reader: bufio.NewReader(conn), request: []byte(request), answer: int64(w.answerBytes())}, nil
}

func (c *http1Client) exchange() error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write(c.request); err != nil {
		return err
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || n != c.answer {
		return fmt.Errorf("answer %s with %d bytes, want 200 with %d", response.Status, n, c.answer)
	}
	return nil
}

// freshClient connects for each request.
type freshClient struct {
	address string
	work    work
}

func (freshClient) Close() error { return nil }

func (c freshClient) exchange() error {
	conn, err := dialHTTP1(c.address, c.work)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.exchange()
}

// serveHTTP1 answers each request of a connection with n bytes, in one write.
func serveHTTP1(conn net.Conn, n int) {
	defer conn.Close()
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", n, strings.Repeat("x", n))
	reader := bufio.NewReader(conn)
	for {
		request, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, request.Body); err != nil {
			return
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}
