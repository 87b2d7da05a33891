package proxy

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"sluice/proxy/socket"
	"sluice/route/places"
	"sluice/test/verify"
)

// getFrom performs a handshake and a request from a loopback address.
func (p *testProxy) getFrom(address string) error {
	p.t.Helper()
	raw := p.dialFrom(address)
	defer raw.Close()
	return get200(tls.Client(raw, &tls.Config{InsecureSkipVerify: true}))
}

// clientHello returns what a client sends first.
func clientHello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	hello := new(recorded)
	config.InsecureSkipVerify = true
	tls.Client(hello, config).Handshake() // fails
	return hello.sent.Bytes()
}

// startHandshakes starts a proxy that waits for long, and has so many places for handshakes left.
func startHandshakes(t *testing.T, left int) *testProxy {
	t.Helper()
	p := startProxy(t, Options{Timeouts: Timeouts{Head: time.Hour}}, answersOK(t))
	takeAllBut(p.handshakes, left)
	return p
}

// takeAllBut takes the places of handshakes for other clients, until so many are left.
func takeAllBut(h *socket.Handshakes, left int) {
	for h.Places.Taken() < socket.MaxHandshakes-left {
		h.Places.Take(places.Many, nil)
	}
}

const (
	badClient  = "127.0.0.2"
	goodClient = "127.0.0.3"
)

// longProtocols are so many that a ClientHello with them has two records.
func longProtocols() (all []string) {
	for i := range 110 {
		all = append(all, fmt.Sprintf("%s%d", strings.Repeat("x", 180), i))
	}
	return append(all, "http/1.1")
}

// Who has not sent a whole ClientHello has nothing that another client needs. One of several
// records takes a place when all of them are there, and none if it is longer than any may be.
func TestOverTLSPartsOfAClientHelloTakeNoPlace(t *testing.T) {
	t.Parallel()
	p := startHandshakes(t, 1)
	short, long := clientHello(t, &tls.Config{}), clientHello(t, &tls.Config{NextProtos: longProtocols()})
	const recordBytes = 16 << 10 // at most
	verify.Require(t, len(long) >= recordBytes+1000, "a ClientHello of %d bytes", len(long))
	for n := range 20 {
		p.sendFrom(goodClient, short[:1+n*(len(short)-2)/19])
	}
	for _, part := range []int{recordBytes, recordBytes + 5, recordBytes + 500, len(long) - 1} {
		for range 3 {
			p.sendFrom(goodClient, long[:part])
		}
	}
	eventually(t, "all are accepted", func() bool { return p.Connections() == 32 })
	// Whoever comes later finds them as far as they get.
	for range 3 {
		verify.Succeeds(t, p.getFrom(goodClient))
	}
	h := p.Stats().Handshakes
	verify.That(t, h.InProgress == socket.MaxHandshakes-1 && h.Failed+uint64(h.Waiting) <= 0, "got %+v", h)

	var divided []byte // 6 bytes for each of its own
	for _, b := range long[5:] {
		divided = append(divided, 22, 3, 1, 0, 1, b)
	}
	for _, tooLong := range [][]byte{
		divided,
		append([]byte{22, 3, 1, 0, 100, 1, 1, 0, 1}, long[:50]...),
	} {
		conn := p.dialFrom(goodClient)
		conn.Write(tooLong) // fails if it is refused early
		got, err := io.ReadAll(conn)
		verify.That(t, !errors.Is(err, os.ErrDeadlineExceeded) && len(got) == 0, "%d bytes are too long: got %q, %v", len(tooLong), got, err)
	}

	for _, raw := range []net.Conn{p.dialFrom(goodClient), &recorder{Conn: p.dialFrom(goodClient), most: 777}} {
		verify.Succeeds(t, get200(tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: longProtocols()})))
	}
}

// One client has its share of the places, and the next free one is for another client. Handshakes
// that wait for their clients hold back no other one, as none of them has the turn to compute.
func TestOverTLSOneClientHasItsShareOfTheHandshakes(t *testing.T) {
	t.Parallel()
	p := startHandshakes(t, socket.MaxHandshakes)
	for range runtime.GOMAXPROCS(0) - 1 {
		p.handshakes.Turns.Take(places.Many, nil)
	}
	hello := clientHello(t, &tls.Config{})
	first := p.sendFrom(badClient, hello)
	eventually(t, "one handshake", func() bool { return p.Stats().Handshakes.InProgress == 1 })
	for range socket.MaxHandshakesPerBlock + 19 {
		p.sendFrom(badClient, hello)
	}
	expect := func(waiting int, failed uint64) {
		t.Helper()
		eventually(t, fmt.Sprint(waiting, " wait"), func() bool {
			h := p.Stats().Handshakes
			return h.InProgress == socket.MaxHandshakesPerBlock && h.Waiting == waiting && h.Failed == failed
		})
	}
	expect(20, 0)
	first.Close() // the next one of the client has its place
	expect(19, 1)
	takeAllBut(p.handshakes, 1)
	for range 3 {
		verify.Succeeds(t, p.getFrom(goodClient))
	}
	eventually(t, "three are counted", func() bool { return p.Stats().Handshakes.Full == 3 })
}

// If places are scarce, clients that do not go on lose them soon, however many they are.
func TestOverTLSScarcePlacesAreLeftSoon(t *testing.T) {
	t.Parallel()
	p := startHandshakes(t, 8)
	hello := clientHello(t, &tls.Config{})
	for n := range 8 {
		p.sendFrom(fmt.Sprint("127.0.1.", n), hello)
	}
	eventually(t, "each has had a place", func() bool {
		h := p.Stats().Handshakes
		return h.InProgress+int(h.Failed) >= socket.MaxHandshakes
	})
	verify.Succeeds(t, p.getFrom(goodClient))
	eventually(t, "they lose their places", func() bool {
		h := p.Stats().Handshakes
		return h.InProgress == socket.MaxHandshakes-8 && h.Failed == 8
	})
}

// A handshake that waits for others holds back no other one.
func TestOverTLSWaitsForOthersTakeNoPlace(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, answersOK(t))
	release, waits := make(chan struct{}), make(chan struct{})
	serverTLS := serverTLS(t)
	p.serveTLS(&tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if hello.ServerName != "hanging" {
			return serverTLS, nil
		}
		return serverTLS, socket.AwaitOthers(hello, func() {
			waits <- struct{}{}
			<-release
		})
	}})
	takeAllBut(p.handshakes, 1)
	var hanging sync.WaitGroup
	for range runtime.GOMAXPROCS(0) + 2 {
		conn := p.dialFrom(goodClient)
		hanging.Go(func() {
			verify.Succeeds(t, tls.Client(conn, &tls.Config{ServerName: "hanging", InsecureSkipVerify: true}).Handshake())
		})
		<-waits
	}
	verify.Succeeds(t, p.getFrom(goodClient))
	close(release)
	hanging.Wait()
}

// serveTLS makes the proxy serve another listener, with its own settings of TLS, and uses its
// address from now on.
func (p *testProxy) serveTLS(c *tls.Config) {
	p.t.Helper()
	p.address = p.serveWith(ListenerOptions{Name: "more", TLS: c})
}

// The answer to a challenge of ACME is the handshake: no request is read after it, whatever
// the listener asks of other clients.
func TestOverTLSNothingFollowsAChallenge(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, answersOK(t))
	p.serveTLS(&tls.Config{
		Certificates: serverTLS(t).Certificates, NextProtos: []string{"acme-tls/1", "http/1.1"},
	})
	for _, protocol := range []string{"acme-tls/1", "http/1.1", ""} {
		c := &tls.Config{InsecureSkipVerify: true}
		if protocol != "" {
			c.NextProtos = []string{protocol}
		}
		conn := tls.Client(p.dialFrom(goodClient), c)
		err := conn.Handshake()
		verify.That(t, err == nil, "%q: %v", protocol, err)
		err = get200(conn)
		verify.That(t, (err == nil) == (protocol != "acme-tls/1"), "%q: %v", protocol, err)
	}
}

// A keyUpdater sends records of TLS 1.3 in place of a tls.Conn whose handshake has ended, and so
// also KeyUpdate messages.
type keyUpdater struct {
	t        testing.TB
	keyBytes int
	newSeal  func(key []byte) (cipher.AEAD, error)
	secret   []byte
	seal     cipher.AEAD
	iv       []byte
	number   uint64 // of the next record
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// newKeyUpdater returns one for a cipher suite and a key log with the secret of the client.
func newKeyUpdater(t testing.TB, suite uint16, keyLog string) *keyUpdater {
	t.Helper()
	k := &keyUpdater{t: t, keyBytes: 16, newSeal: newGCM}
	if suite == tls.TLS_CHACHA20_POLY1305_SHA256 { // on a processor without AES
		k.keyBytes, k.newSeal = chacha20poly1305.KeySize, chacha20poly1305.New
	} else {
		verify.Equal(t, suite, tls.TLS_AES_128_GCM_SHA256, "the cipher suite")
	}
	_, line, found := strings.Cut(keyLog, "CLIENT_TRAFFIC_SECRET_0 ")
	verify.Require(t, found, "the key log %q has no secret", keyLog)
	k.use(verify.Result(hex.DecodeString(strings.Fields(line)[1])).Must(t))
	return k
}

// expand is HKDF-Expand-Label (RFC 8446, section 7.1) without a context.
func (k *keyUpdater) expand(label string, length int) []byte {
	label = "tls13 " + label
	info := append(binary.BigEndian.AppendUint16(nil, uint16(length)), byte(len(label)))
	return verify.Result(hkdf.Expand(sha256.New, k.secret, string(info)+label+"\x00", length)).Must(k.t)
}

// use changes to the keys of a secret.
func (k *keyUpdater) use(secret []byte) {
	k.secret, k.number = secret, 0
	k.seal, k.iv = verify.Result(k.newSeal(k.expand("key", k.keyBytes))).Must(k.t), k.expand("iv", 12)
}

// Types of records.
const (
	handshakeRecord = 22
	dataRecord      = 23
)

// appendRecord appends a record (RFC 8446, section 5.2).
func (k *keyUpdater) appendRecord(out []byte, kind byte, text string) []byte {
	header := binary.BigEndian.AppendUint16([]byte{dataRecord, 3, 3}, uint16(len(text)+1+k.seal.Overhead()))
	nonce := bytes.Clone(k.iv)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^k.number)
	k.number++
	return k.seal.Seal(append(out, header...), nonce, append([]byte(text), kind), header)
}

// appendUpdate appends a KeyUpdate that asks for another one.
func (k *keyUpdater) appendUpdate(out []byte) []byte {
	out = k.appendRecord(out, handshakeRecord, "\x18\x00\x00\x01\x01")
	k.use(k.expand("traffic upd", sha256.Size))
	return out
}

// The responses to key updates of a client take little memory while sluice has nothing else to
// send, such as during an upload.
func TestKeyUpdatesDuringAnUpload(t *testing.T) {
	t.Parallel()
	var uploaded atomic.Int64
	p := startProxyTo(t, false, Options{}, func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			uploaded.Add(1)
		}
	})
	p.address = p.serveWith(ListenerOptions{TLS: &tls.Config{Certificates: []tls.Certificate{certificate()}}})
	upload := func(updates int) (received int64) {
		conn := p.stream()
		var keyLog strings.Builder
		client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &keyLog, MinVersion: tls.VersionTLS13})
		verify.NoError(t, client.Handshake())
		k := newKeyUpdater(t, client.ConnectionState().CipherSuite, keyLog.String())
		const atOnce = 10 // crypto/tls bounds those without data between them
		out := k.appendRecord(nil, dataRecord, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
		for n := 0; n < updates; n += atOnce {
			for range atOnce {
				out = k.appendUpdate(out)
			}
			out = k.appendRecord(out, dataRecord, "1\r\na\r\n")
		}
		// Sluice may end the connection before.
		conn.Write(k.appendRecord(out, dataRecord, "0\r\n\r\n"))
		received, _ = io.Copy(io.Discard, conn)
		eventually(t, "the request has ended", func() bool { return p.inflight() == 0 })
		return received
	}
	upload(1000)
	verify.Equal(t, uploaded.Load(), 1, "uploads with few updates")
	const most = 256 << 10
	got := upload(30_000)
	verify.That(t, got <= most, "sluice had %d bytes to send, want at most %d", got, most)
}
