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
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"sluice/test/verify"
)

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
		conn.Write(k.appendRecord(out, dataRecord, "0\r\n\r\n")) // sluice may end the connection before
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
