package acme

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"
	"golang.org/x/sync/singleflight"

	"sluice/certificates"
	"sluice/consul"
	"sluice/observe/panics"
)

const (
	// maxReads is the maximum number of reads in flight, outside of orders and renewals, and
	// within them. They must not take the connections of the watches.
	maxReads = 8
	// readTimeout bounds a read outside of orders and renewals.
	readTimeout = 5 * time.Second
	// unlockTimeout bounds the release of the locks at the end, and the wait for them.
	unlockTimeout = 2 * time.Second
)

// consulStorage is a certmagic.Storage in Consul's KV store, which replicas share. The
// value of a key is certmagic's value, encrypted by cipher; its flags are the time of the last
// change in milliseconds since 1970. It is safe for concurrent use.
type consulStorage struct {
	storage
	client      *consul.Client
	prefix      string
	cipher      *certificates.Cipher // nil: values are not encrypted
	reading     [2]chan struct{}     // an element per read in flight: outside of orders, and within
	loads       singleflight.Group   // outside of orders and renewals, by key
	stopProbing func()

	mu sync.Mutex
	// mu guards the fields below.
	locks  map[string]*consul.Lock // that are held, by name
	closed bool
}

// newConsulStorage returns the storage below prefix. The caller must call close.
func newConsulStorage(client *consul.Client, prefix string, cipher *certificates.Cipher, log zerolog.Logger) *consulStorage {
	s := &consulStorage{
		storage: storage{
			location: "consul_kv:" + prefix, log: log, misfits: make(map[string]bool), changed: client.Changed,
			final: func(err error) bool {
				return errors.Is(err, certificates.ErrSealed)
			},
		},
		client: client, prefix: prefix, cipher: cipher, reading: [2]chan struct{}{make(chan struct{}, maxReads), make(chan struct{}, maxReads)},
		stopProbing: client.KeepProbing(), locks: make(map[string]*consul.Lock),
	}
	s.ending, s.end = context.WithCancel(context.Background())
	return s
}

func (s *consulStorage) key(key string) string { return path.Join(s.prefix, key) }

// read calls operation as do does, with few others at the same time.
func (s *consulStorage) read(ctx context.Context, operation func(context.Context) error) error {
	if ctx.Value(patience{}) != nil {
		return s.readIn(ctx, s.reading[1], operation)
	}
	return s.once(ctx, func(ctx context.Context) error { return s.readIn(ctx, s.reading[0], operation) })
}

func (s *consulStorage) readIn(ctx context.Context, reading chan struct{}, operation func(context.Context) error) error {
	select {
	case reading <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-reading }()
	return s.do(ctx, reads, operation)
}

// get returns the pair of a key, with its decrypted value. old: it must be encrypted anew. The
// error is fs.ErrNotExist if there is none.
func (s *consulStorage) get(ctx context.Context, key string) (pair *api.KVPair, old bool, err error) {
	err = s.read(ctx, func(ctx context.Context) (err error) {
		pair, _, err = s.client.KV().Get(ctx, s.key(key), 0, 0)
		switch {
		case err != nil:
			return err
		case pair == nil:
			return fs.ErrNotExist
		}
		pair.Value, old, err = s.cipher.Open(key, pair.Value)
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", s.key(key), err)
	}
	return pair, old, nil
}

// encryptAll encrypts all values that the first key has not encrypted. It leaves out those
// that are changed meanwhile: another replica has encrypted them.
func (s *consulStorage) encryptAll(ctx context.Context) error {
	keys, err := s.List(ctx, "", true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	count := 0
	var errs []error
	for _, key := range keys {
		if strings.HasPrefix(key, locks) {
			continue
		}
		pair, old, err := s.get(ctx, key)
		if err == nil && old {
			pair.Value = s.cipher.Seal(key, pair.Value)
			err = s.do(ctx, changes, func(ctx context.Context) error {
				replaced, err := s.client.KV().Replace(ctx, pair)
				if replaced {
					count++
				}
				return err
			})
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if count > 0 {
		s.log.Info().Str("keys", s.prefix).Int("values", count).Msg("acme: values in Consul are now encrypted with the first key")
	}
	return errors.Join(errs...)
}

// locks is the directory of the locks.
const locks = "locks/"

// Load implements certmagic.Storage.
func (s *consulStorage) Load(ctx context.Context, key string) ([]byte, error) {
	return s.whole(ctx, key, s.share)
}

// share is load. Outside of orders and renewals, one read of a key serves
// all who wait for it: anyone can cause them by requests for challenges.
func (s *consulStorage) share(ctx context.Context, key string) ([]byte, error) {
	if ctx.Value(patience{}) != nil {
		return s.load(ctx, key)
	}
	read := s.loads.DoChan(key, func() (value any, err error) { // it ends within readTimeout
		defer panics.Contain(panics.Task, func() { err = panics.Err })
		return s.load(context.Background(), key)
	})
	select {
	case r := <-read:
		value, _ := r.Val.([]byte)
		return value, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *consulStorage) load(ctx context.Context, key string) ([]byte, error) {
	pair, _, err := s.get(ctx, key)
	if err != nil {
		return nil, err
	}
	return pair.Value, nil
}

// Store implements certmagic.Storage.
func (s *consulStorage) Store(ctx context.Context, key string, value []byte) error {
	pair := &api.KVPair{Key: s.key(key), Value: s.cipher.Seal(key, value), Flags: uint64(time.Now().UnixMilli())}
	return s.do(patiently(ctx), changes, func(ctx context.Context) error { return s.client.KV().Put(ctx, pair) })
}

// Delete implements certmagic.Storage.
func (s *consulStorage) Delete(ctx context.Context, key string) error {
	return s.do(ctx, changes, func(ctx context.Context) error {
		if err := s.client.KV().Delete(ctx, s.key(key)); err != nil {
			return err
		}
		return s.client.KV().DeleteBelow(ctx, s.key(key)+"/")
	})
}

// Exists implements certmagic.Storage.
func (s *consulStorage) Exists(ctx context.Context, key string) bool {
	if isCertificate(key) || isDecoded(key) {
		_, err := s.Load(ctx, key)
		return err == nil
	}
	_, err := s.Stat(ctx, key)
	return err == nil
}

// List implements certmagic.Storage.
func (s *consulStorage) List(ctx context.Context, directory string, recursive bool) (keys []string, err error) {
	below, separator := s.key(directory)+"/", "/"
	if recursive {
		separator = ""
	}
	var names []string
	err = s.read(ctx, func(ctx context.Context) (err error) {
		if names, err = s.client.KV().Names(ctx, below, separator); err == nil && len(names) == 0 {
			err = fs.ErrNotExist
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", below, err)
	}
	for _, name := range names {
		keys = append(keys, path.Join(directory, strings.TrimPrefix(name, below)))
	}
	return keys, nil
}

// Stat implements certmagic.Storage.
func (s *consulStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	pair, _, err := s.get(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err = s.List(ctx, key, false); err == nil {
			return certmagic.KeyInfo{Key: key}, nil
		}
	}
	if err != nil {
		return certmagic.KeyInfo{}, err
	}
	return certmagic.KeyInfo{
		Key: key, Modified: time.UnixMilli(int64(pair.Flags)), Size: int64(len(pair.Value)), IsTerminal: true,
	}, nil
}

// Lock implements certmagic.Locker, by a session of its own.
func (s *consulStorage) Lock(ctx context.Context, name string) error {
	var lock *consul.Lock
	err := s.do(ctx, changes, func(ctx context.Context) (err error) {
		lock, err = s.client.Lock(ctx, s.key(locks+certmagic.StorageKeys.Safe(name)))
		return err
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	if !s.closed {
		s.locks[name] = lock
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	return errors.Join(errClosed, lock.Unlock(context.WithoutCancel(ctx)))
}

// Unlock implements certmagic.Locker. It is no error if close has freed the lock.
func (s *consulStorage) Unlock(ctx context.Context, name string) error {
	s.mu.Lock()
	lock := s.locks[name]
	delete(s.locks, name)
	s.mu.Unlock()
	if lock == nil {
		return nil
	}
	return s.unlock(ctx, name, lock)
}

func (s *consulStorage) unlock(ctx context.Context, name string, lock *consul.Lock) error {
	if errors.Is(context.Cause(lock.Held), consul.ErrLockLost) {
		s.log.Warn().Str("lock", name).Msg("acme: the lock was lost during its use: another replica may have done the same")
	}
	return lock.Unlock(ctx)
}

// close frees the locks, so that other replicas need not wait for their end. Later calls of
// Lock fail.
func (s *consulStorage) close() {
	s.end()
	s.mu.Lock()
	held := s.locks
	s.locks, s.closed = make(map[string]*consul.Lock), true
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), unlockTimeout)
	defer cancel()
	var running sync.WaitGroup
	for name, lock := range held {
		running.Go(func() {
			defer panics.Contain(panics.Task, nil)
			if err := s.unlock(ctx, name, lock); err != nil {
				s.log.Warn().Err(err).Str("lock", name).Msg("acme: the lock cannot be freed: it ends by itself")
			}
		})
	}
	running.Wait()
	s.stopProbing()
}
