package gateway

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"sluice/proxy/proxyprotocol"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// How peers of TestCombinations answer.
const (
	withLength  = "length"
	inChunks    = "chunks"
	withTrailer = "trailer"
	early       = "early" // before the body of the request is read
	withHints   = "hints" // after a 103
	empty       = "empty" // 204
	inDrops     = "drops" // slowly
	zipped      = "zipped"
	cut         = "cut"     // its end does not come
	crash       = "crash"   // none, its connection ends
	stumble     = "stumble" // crash, and withLength when it is asked again
)

// A combinedAsk is what a client asks for, which a peer learns from the query.
type combinedAsk struct {
	path, how string
	status    int
	length    int // of the answer
	key       int // of both bodies
	id        int // of this request among those with stumble
}

func (a combinedAsk) query() string {
	return url.Values{"how": {a.how}, "status": {strconv.Itoa(a.status)}, "length": {strconv.Itoa(a.length)}, "key": {strconv.Itoa(a.key)}, "id": {strconv.Itoa(a.id)}}.Encode()
}

func combinedAskOf(r *http.Request) (a combinedAsk) {
	q := r.URL.Query()
	number := func(name string) int { n, _ := strconv.Atoi(q.Get(name)); return n }
	return combinedAsk{r.URL.Path, q.Get("how"), number("status"), number("length"), number("key"), number("id")}
}

// combinedText is what bodies are made of.
var combinedText = func() string {
	var b strings.Builder
	for n := 0; b.Len() < 1<<20; n++ {
		fmt.Fprintf(&b, "%x/", n*n)
	}
	return b.String()
}()

func combinedBody(key, length int) string { return combinedText[key : key+length] }

// combinedSum is how a peer and a client compare bodies.
func combinedSum(body []byte) string { return fmt.Sprint(len(body), " ", crc32.ChecksumIEEE(body)) }

type combinedCalls struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (combinedCalls) UnaryCall(_ context.Context, r *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return &grpc_testing.SimpleResponse{Payload: &grpc_testing.Payload{Body: make([]byte, r.ResponseSize)}}, nil
}

func (combinedCalls) FullDuplexCall(s grpc_testing.TestService_FullDuplexCallServer) error {
	for {
		r, err := s.Recv()
		if err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		for _, p := range r.ResponseParameters {
			if err := s.Send(&grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: make([]byte, p.Size)}}); err != nil {
				return err
			}
		}
	}
}

// isBarred is a field of requests that must not reach a peer, if it is "true".
const isBarred = "X-Barred"

// peer returns a handler that answers as requests ask, and says what it got of them.
func (s *combinedServers) peer() http.Handler {
	var stumbled sync.Map // ids of the requests that a peer has crashed for
	calls := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(calls, combinedCalls{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(isBarred) == "true" {
			text := fmt.Sprint(r.URL, r.Header)
			s.barred.Store(&text)
		}
		switch {
		case r.URL.Path == "/health":
		case strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
			calls.ServeHTTP(w, r)
		case r.Header.Get("Upgrade") != "":
			combinedSocket(w, r)
		default:
			a := combinedAskOf(r)
			if a.how == stumble {
				if _, again := stumbled.LoadOrStore(a.id, true); again {
					a.how = withLength
				}
			}
			if a.how == crash || a.how == stumble {
				if conn, _, err := http.NewResponseController(w).Hijack(); err == nil { // before HTTP/2
					conn.Close() // a handler that panics would wait for the body first
					return
				}
				panic(http.ErrAbortHandler)
			}
			combinedAnswer(w, r, a)
		}
	})
}

func combinedAnswer(w http.ResponseWriter, r *http.Request, a combinedAsk) {
	h := w.Header()
	h.Set("Content-Type", "text/plain")
	h.Set("X-Path", r.URL.Path)
	h.Set("X-Method", r.Method)
	h.Set("Got-Host", r.Host)
	h.Set("X-Removed", "by some routes")
	for _, name := range []string{"X-Real-IP", "X-Extra", "X-User", "X-Forwarded-Client-Cert"} {
		h.Set("Got-"+name, r.Header.Get(name))
	}
	h.Set("Set-Cookie", "own=1")
	if mine, err := r.Cookie("mine"); err == nil {
		h.Set("Got-Mine", mine.Value)
	}
	if a.how != early {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		h.Set("Got-Body", combinedSum(body))
		h.Set("Got-Trailer", r.Trailer.Get("X-Up"))
	}
	body := []byte(combinedBody(a.key, a.length))
	switch a.how {
	case empty:
		w.WriteHeader(http.StatusNoContent)
		return
	case withHints:
		h.Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
	case withTrailer:
		h.Set("Trailer", "X-Sum")
		defer h.Set("X-Sum", combinedSum(body))
	case zipped:
		var b bytes.Buffer
		to := gzip.NewWriter(&b)
		to.Write(body)
		to.Close()
		body = b.Bytes()
		h.Set("Content-Encoding", "gzip")
	}
	if a.how == withLength || a.how == zipped || a.how == early || a.how == cut && a.key%2 == 0 {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(a.status)
	if a.how == withTrailer || a.how == inChunks {
		http.NewResponseController(w).Flush() // so that there is no Content-Length
	}
	if a.how == cut {
		w.Write(body[:len(body)/2])
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	pieces := 1
	if a.how == inDrops {
		pieces = 8
	}
	for i := range pieces {
		w.Write(body[len(body)*i/pieces : len(body)*(i+1)/pieces])
		if a.how == inChunks || a.how == inDrops {
			http.NewResponseController(w).Flush()
		}
		if a.how == inDrops {
			<-time.After(2 * time.Millisecond)
		}
	}
}

// combinedSocket switches to a WebSocket whose bytes come back.
func combinedSocket(w http.ResponseWriter, r *http.Request) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Path: %s\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		r.URL.Path, webSocketAccept(r.Header.Get("Sec-WebSocket-Key")))
	io.Copy(conn, buffered)
}

func webSocketAccept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// combinedServers are the peers of TestCombinations, and the files of its configurations.
type combinedServers struct {
	plain, secure                       []string // addresses
	streams, secureStreams, toldStreams []string
	auth                                string
	issuer                              *issuer
	tokens, users, page, ca             string // files
	dir, socketDir                      string
	clients                             map[string]tls.Certificate // by who has them
	sockets                             map[string]string          // of servers, by their addresses
	clientCA, clientCRL                 string                     // files
	tickets                             []string                   // files
	authority                           *testcert.Authority        // of the listeners
	socketsMade                         atomic.Uint64
	barred                              atomic.Pointer[string] // a request that must not have reached a peer
}

func startCombinedServers(t *testing.T) *combinedServers {
	t.Helper()
	dir := t.TempDir()
	site := testcert.Write(t, dir, "*.example.com")
	s := &combinedServers{dir: dir, sockets: make(map[string]string), ca: site.Cert, issuer: startIssuer(t)}
	pair := verify.Result(tls.LoadX509KeyPair(site.Cert, site.Key)).Must(t)
	s.issue(t)
	serve := func(secure bool, handler http.Handler) string {
		server := httptest.NewUnstartedServer(handler)
		server.Config.ErrorLog = log.New(io.Discard, "", 0) // connections end at any time
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetHTTP1(true)
		server.Config.Protocols.SetUnencryptedHTTP2(!secure)
		if server.EnableHTTP2 = secure; secure {
			server.Config.Protocols.SetHTTP2(true)
			server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
			server.StartTLS()
		} else {
			server.Start()
		}
		t.Cleanup(server.Close)
		address := server.Listener.Addr().String()
		l := s.socket(t, address)
		if secure {
			l = tls.NewListener(l, server.TLS)
		}
		go server.Config.Serve(l)
		return address
	}
	// streams serves connections at two addresses.
	streams := func(serve func(net.Conn), secure *tls.Config) string {
		l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
		for _, l := range []net.Listener{l, s.socket(t, l.Addr().String())} {
			if secure != nil {
				l = tls.NewListener(l, secure)
			}
			listen(t, l, serve)
		}
		return l.Addr().String()
	}
	echo := func(conn net.Conn) { fmt.Fprintln(conn, "hello"); io.Copy(conn, conn) }
	told := func(conn net.Conn) {
		in := bufio.NewReader(conn)
		if known, err := readHeader(in, netip.MustParseAddr("127.0.0.9")); err == nil && known {
			fmt.Fprintln(conn, "hello")
			io.Copy(conn, in)
		}
	}
	peer := s.peer()
	for range 3 {
		s.toldStreams = append(s.toldStreams, streams(told, nil))
		s.plain = append(s.plain, serve(false, peer))
		s.secure = append(s.secure, serve(true, peer))
		s.streams = append(s.streams, streams(echo, nil))
		s.secureStreams = append(s.secureStreams, streams(func(conn net.Conn) {
			echo(conn)
			conn.(*tls.Conn).CloseWrite()
		}, &tls.Config{Certificates: []tls.Certificate{pair}}))
	}
	s.auth = serve(false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Pass") != "yes" {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, "not allowed")
			return
		}
		path, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Uri"), "?")
		w.Header().Set("X-User", "asked")
		w.Header().Set("X-Allowed", "yes")
		w.Header().Set("X-Sluice-Path", "/decided"+path[len("/r0"):])
		w.Header().Set("Cache-Control", "max-age=60")
	}))
	keys := httptest.NewRecorder()
	s.issuer.Config.Handler.ServeHTTP(keys, nil)
	s.tokens = writeFile(t, dir, "keys.json", keys.Body.Bytes())
	sum := sha1.Sum([]byte("secret"))
	s.users = writeFile(t, dir, "users", []byte("ada:{SHA}"+base64.StdEncoding.EncodeToString(sum[:])+"\n"))
	s.page = writeFile(t, dir, "page.html", []byte("a page"))
	return s
}

// socket returns a unix socket besides the address of a server.
func (s *combinedServers) socket(t *testing.T, address string) net.Listener {
	if len(s.sockets) == 0 {
		s.socketDir = socketDirectory(t)
	}
	s.sockets[address] = filepath.Join(s.socketDir, fmt.Sprint(len(s.sockets)))
	l := verify.Result(net.Listen("unix", s.sockets[address])).Must(t)
	t.Cleanup(func() { l.Close() })
	return l
}

// instances writes the instances of a service to a file, with tags.
func (s *combinedServers) instances(t *testing.T, name string, addresses []string) string {
	var list []settings
	for n, a := range addresses {
		list = append(list, settings{"host": "127.0.0.1", "port": port(t, a), "tags": []string{fmt.Sprint("v", 1+n%2)}, "weight": 1 + n})
	}
	path := filepath.Join(s.dir, name+".json")
	replaceFile(t, path, asYAML(list))
	return path
}

// readHeader reads the PROXY header at the start of a connection, and reports whether it is about a
// client.
func readHeader(in *bufio.Reader, client netip.Addr) (known bool, err error) {
	for n := 1; ; n++ {
		start, err := in.Peek(n)
		if err != nil {
			return false, err
		}
		length, err := proxyprotocol.Length(start)
		if err != nil || length == 0 {
			if err != nil {
				return false, err
			}
			continue
		}
		of, _, err := proxyprotocol.Parse(start[:length])
		_, _ = in.Discard(length)
		return of.Client.Addr() == client, err
	}
}
