package document

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/config"
	"sluice/consul"
)

// A changed tree is read when it has not changed for settleTime: who writes keys one by one
// has probably finished. It does not wait longer than settleTimeMax.
const (
	settleTime    = 200 * time.Millisecond
	settleTimeMax = 2 * time.Second
)

// ConsulKV is a document, or a tree of documents, in Consul's KV store.
type ConsulKV struct {
	Client *consul.Client
	Name   string // of the source
	// Key is that of the document; empty: Prefix is that of a tree.
	Key, Prefix string
	// AllowEmpty says that a tree without keys, or a key that is deleted, is meant.
	AllowEmpty bool
	// Had says that there were documents before Run.
	Had  bool
	Wait func() time.Duration // of blocking queries
}

// answer is a whole tree, or why it is not known.
type answer struct {
	said config.Source
	err  error
}

// Run implements Source.
func (k *ConsulKV) Run(ctx context.Context, report func(Report)) error {
	answers := make(chan answer, 1)
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() {
		defer k.Client.Join()()
		_ = k.Client.Follow(ctx, consul.FollowOptions{ // ends with ctx
			Query: k.query(),
			Read: func(a consul.Answer, body []byte) error {
				said, err := k.decode(a, body)
				if err == nil {
					offer(answers, answer{said: said})
				}
				return err
			},
			Ended: func(err error) {
				if err != nil {
					offer(answers, answer{err: err})
				}
			},
			Begin: func(context.Context) (time.Duration, error) { return k.Wait(), nil },
		})
	})

	settled := time.NewTimer(0)
	settled.Stop()
	defer settled.Stop()
	var latest answer
	var first time.Time // of the first answer since the last report
	known := false      // an answer has been reported
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-answers:
			if a.err != nil {
				settled.Stop()
				first = time.Time{}
				report(Report{Err: a.err})
				continue
			}
			now := time.Now()
			if first.IsZero() {
				first = now
			}
			latest = a
			if known {
				settled.Reset(max(0, min(settleTime, settleTimeMax-now.Sub(first))))
				continue
			}
		case <-settled.C:
		}
		first, known = time.Time{}, true
		report(k.check(ctx, latest.said))
	}
}

// offer replaces the answer in a channel with one place.
func offer(answers chan answer, a answer) {
	select {
	case <-answers:
	default:
	}
	answers <- a // there is a place: nobody else sends
}

// query returns the query of all keys.
func (k *ConsulKV) query() consul.Query {
	if k.Key != "" {
		return consul.OneKey(k.Key)
	}
	return consul.KeysBelow(k.Prefix)
}

// decode returns the documents of an answer. Consul lists keys in their order.
func (k *ConsulKV) decode(a consul.Answer, body []byte) (config.Source, error) {
	said := config.Source{Name: k.Name, Kind: config.KindConsulKV, Revision: strconv.FormatUint(a.Index, 10)}
	list, err := consul.DecodeKeys(a, body)
	if err != nil {
		return said, fmt.Errorf("%s: %w", k.Name, err)
	}
	for _, pair := range list {
		said.Documents = append(said.Documents, k.document(pair))
	}
	return said, nil
}

func (k *ConsulKV) document(pair api.KVPair) config.Document {
	if k.Key != "" {
		return config.Document{Name: config.KindConsulKV + ":" + pair.Key, Text: string(pair.Value)}
	}
	return config.TreeDocument(config.KindConsulKV, pair.Key, pair.Key[len(k.Prefix):], string(pair.Value))
}

// check returns the report of an answer. Nothing where something was is a mistake, unless that
// is allowed; then the leader must confirm it.
func (k *ConsulKV) check(ctx context.Context, said config.Source) Report {
	if len(said.Documents) > 0 || !k.Had {
		k.Had = len(said.Documents) > 0
		return Report{Said: said}
	}
	if !k.AllowEmpty {
		return Report{Err: fmt.Errorf("%s: empty, although it was not before: the last documents stay in use; allow_empty: true allows it", k.Name)}
	}
	q := k.query()
	q.RequireConsistent = true
	var body []byte
	a, err := k.Client.Get(ctx, q, func(r io.Reader) (err error) {
		body, err = io.ReadAll(r)
		return err
	})
	if err == nil {
		err = k.Client.Doubt(a)
	}
	if err == nil {
		said, err = k.decode(a, body)
	}
	if err != nil {
		return Report{Err: fmt.Errorf("%s: empty, which Consul's leader does not confirm: %w", k.Name, err)}
	}
	k.Had = len(said.Documents) > 0
	return Report{Said: said}
}
