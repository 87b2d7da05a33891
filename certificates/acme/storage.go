package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"github.com/rs/zerolog"
)

// The pause after an error of an order or renewal doubles from firstPause to maxPause.
const (
	firstPause = 100 * time.Millisecond
	maxPause   = 10 * time.Second
)

// storage is the common part of the storages in Consul and in files. It is safe for concurrent use.
//
// Operations with a context of patiently, and all writes of values, are repeated until they
// succeed. Else certmagic gives up an order while Consul is away, or a disk is full. A renewal
// loses the new certificate, and deletes the part that is written in place of the old one.
type storage struct {
	location string // for people
	log      zerolog.Logger
	final    func(error) bool       // a repetition does not help
	changed  func() <-chan struct{} // closed when operations should be repeated at once
	ending   context.Context        // of the repetitions, and of waits for locks in files
	end      context.CancelFunc

	mu sync.Mutex
	// mu guards the fields below.
	errs    [2]error        // of the last read and the last change; nil: it succeeded
	misfits map[string]bool // keys of damaged values, and of certificates without a fitting key
	hung    time.Time       // when a read of once failed late; zero: an operation succeeded since
}

// access is the kind of an operation. A token may be enough for one and not for the other.
type access uint8

const (
	reads access = iota
	changes
)

type patience struct{}

// patiently returns a context of operations that are repeated until they succeed, or ctx
// ends. It knows the private keys that were read last: see whole.
func patiently(ctx context.Context) context.Context {
	return context.WithValue(ctx, patience{}, new(sync.Map))
}

// do calls operation, once or until it succeeds.
func (s *storage) do(ctx context.Context, a access, operation func(context.Context) error) error {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		changed := s.changed()
		err := operation(ctx)
		if a == reads && errors.Is(err, fs.ErrNotExist) {
			s.record(a, nil)
			return err
		}
		if ctx.Err() != nil || errors.Is(err, errClosed) {
			return err
		}
		s.record(a, err)
		if err == nil || ctx.Value(patience{}) == nil || s.final(err) {
			return err
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-changed:
		case <-ctx.Done():
		case <-s.ending.Done():
		}
		if s.ending.Err() != nil {
			return err
		}
	}
}

// errHung is the error of a read that is not tried.
var errHung = errors.New("the storage does not answer")

// once calls operation, a read outside of orders and renewals, for at most readTimeout. After
// a read that failed late, others fail at once for readTimeout, or until an operation succeeds:
// certmagic reads certificates one by one, with a lock for which handshakes may wait.
func (s *storage) once(ctx context.Context, operation func(context.Context) error) error {
	s.mu.Lock()
	hung := s.hung
	s.mu.Unlock()
	if time.Since(hung) < readTimeout {
		return errHung
	}
	begin := time.Now()
	limited, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	err := operation(limited)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && time.Since(begin) > readTimeout/2 && ctx.Err() == nil {
		s.mu.Lock()
		s.hung = time.Now()
		s.mu.Unlock()
	}
	return err
}

// record records the result of an operation, and logs when errors begin and end.
func (s *storage) record(a access, err error) {
	s.mu.Lock()
	before := errors.Join(s.errs[:]...)
	if s.errs[a] = err; err == nil {
		s.hung = time.Time{}
	}
	after := errors.Join(s.errs[:]...)
	s.mu.Unlock()
	if after != nil && before == nil {
		s.log.Warn().Err(err).Str("storage", s.location).Msg("acme: the storage cannot be used: certificates stay in use")
	} else if after == nil && before != nil {
		s.log.Info().Str("storage", s.location).Msg("acme: the storage can be used again")
	}
}

// fault returns why the storage cannot be used, or nil.
func (s *storage) fault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.errs[:]...)
}

// isCertificate reports whether a key is a certificate's. The private key beside it ends with .key.
func isCertificate(key string) bool { return strings.HasSuffix(key, ".crt") }

// isDecoded reports whether certmagic itself decodes the value of a key: JSON of an account,
// a certificate or a challenge, or the private key of an account.
func isDecoded(key string) bool {
	return strings.HasSuffix(key, ".json") || strings.HasPrefix(key, "acme/") && strings.HasSuffix(key, ".key")
}

// damage returns why the value of a key of isDecoded cannot be decoded; nil: it can be.
func damage(key string, value []byte) error {
	var content any
	switch {
	case !strings.HasSuffix(key, ".json"):
		_, err := certmagic.PEMDecodePrivateKey(value)
		return err
	case strings.HasPrefix(key, "certificates/"):
		content = new(certmagic.CertificateResource)
	case strings.Contains(key, "/users/"):
		content = new(acme.Account)
	default:
		content = new(acme.Challenge)
	}
	if err := json.Unmarshal(value, content); err != nil {
		return fmt.Errorf("it is no valid JSON of its kind: %w", err)
	}
	return nil
}

// whole returns what load returns for a key, or that there is no value if certmagic could not
// use it:
//   - A value that it could not decode: it would give up the name, or each order by the account.
//   - A certificate that does not fit its private key: it would neither use nor replace it. A crash
//     between their writes leaves that, and so do two replicas of which one has lost its lock.
//     certmagic looks again with the lock before it orders, so a pair that is being written costs
//     no order.
//   - A certificate whose private key was replaced after it was read: it would give up the name.
func (s *storage) whole(ctx context.Context, key string, load func(context.Context, string) ([]byte, error)) ([]byte, error) {
	value, err := load(ctx, key)
	if err != nil {
		return nil, err
	}
	if isDecoded(key) {
		return s.fitting(key, value, damage(key, value), "acme: a value is damaged: it is not used, and an order writes it anew")
	}
	lastRead, patient := ctx.Value(patience{}).(*sync.Map)
	if !isCertificate(key) {
		if patient && strings.HasSuffix(key, ".key") {
			lastRead.Store(s.location+key, value)
		}
		return value, nil
	}
	privateKey := strings.TrimSuffix(key, ".crt") + ".key"
	private, err := load(ctx, privateKey)
	if err != nil {
		return nil, err
	}
	if patient {
		if before, ok := lastRead.LoadAndDelete(s.location + privateKey); ok && !bytes.Equal(before.([]byte), private) {
			return nil, fmt.Errorf("%s: %w: it has just been replaced", key, fs.ErrNotExist)
		}
	}
	_, misfit := tls.X509KeyPair(value, private)
	return s.fitting(key, value, misfit, "acme: a certificate does not fit its private key: it is not used, and ordered anew")
}

// fitting returns value, or that there is none, with a misfit; then it logs the message once.
func (s *storage) fitting(key string, value []byte, misfit error, message string) ([]byte, error) {
	s.mu.Lock()
	before := s.misfits[key]
	s.misfits[key] = misfit != nil
	s.mu.Unlock()
	if misfit == nil {
		return value, nil
	}
	if !before {
		s.log.Warn().Err(misfit).Str("storage", s.location).Str("key", key).Msg(message)
	}
	return nil, fmt.Errorf("%s: %w: %w", key, fs.ErrNotExist, misfit)
}
