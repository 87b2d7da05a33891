package live

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/config"
	"sluice/consul"
	"sluice/observe/panics"
)

// A changed tree is read when it has not changed for settleTime: who writes keys one by one
// has probably finished. It does not wait longer than settleTimeMax.
const (
	settleTime    = 200 * time.Millisecond
	settleTimeMax = 2 * time.Second
	// confirmAgain is the time between two questions whether an empty tree is meant.
	confirmAgain = 2 * time.Second
)

// ConsulKV is a document, or a tree of documents, in Consul's KV store.
type ConsulKV struct {
	Client *consul.Client
	// AllowEmpty counts only if Consul's leader confirms that there is no key.
	config.DynamicConsulKV
	Before config.Source        // what the source, which it names, said before Run
	Wait   func() time.Duration // of blocking queries
}

// answer is a whole tree, or why it is not known.
type answer struct {
	said config.Source
	keys []api.KVPair
	err  error
	// forgot says that Consul may have lost its state before this answer and after the last one
	// that was taken, also if an answer between them has told it.
	forgot bool
}

// Run implements Source.
func (k *ConsulKV) Run(ctx context.Context, report func(Report)) error {
	answers, before := make(chan answer, 1), k.Before
	stop := panics.Start(ctx, panics.Watch, func(ctx context.Context) {
		_ = k.Client.Follow(ctx, consul.FollowOptions{ // ends with ctx
			Query: k.query(),
			Read: func(a consul.Answer, body []byte) error {
				answer, err := k.decode(a, body)
				if err == nil {
					answer.forgot, before = a.Forgot || mayHaveForgotten(before, answer), answer.said
					replaceLatest(answers, answer)
				}
				return err
			},
			Ended: func(err error) {
				if err != nil {
					replaceLatest(answers, answer{err: err})
				}
			},
			BeforeQuery: func(context.Context) (time.Duration, error) { return k.Wait(), nil },
		})
	})
	defer stop()

	settled := time.NewTimer(0)
	settled.Stop()
	defer settled.Stop()
	var latest answer
	var first time.Time // of the first answer since the last report
	said := k.Before    // as reported
	known := false      // an answer has been reported
	lost := false       // Consul may have lost its state since
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-answers:
			lost = lost || a.forgot
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
		r := k.check(ctx, latest, said)
		r.Forgot = lost
		if report(r); r.Err != nil {
			settled.Reset(confirmAgain)
		} else {
			said, lost = r.Said, false
		}
	}
}

// replaceLatest replaces the answer in a channel with one place.
func replaceLatest(answers chan answer, a answer) {
	select {
	case before := <-answers:
		a.forgot = a.forgot || before.forgot
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
func (k *ConsulKV) decode(a consul.Answer, body []byte) (answer, error) {
	said := config.Source{Name: k.Before.Name, Kind: config.KindConsulKV, Revision: strconv.FormatUint(a.Index, 10)}
	list, err := consul.DecodeKeys(a, body)
	if err != nil {
		return answer{}, fmt.Errorf("%s: %w", k.Before.Name, err)
	}
	for _, pair := range list {
		said.Documents = append(said.Documents, k.document(pair))
	}
	return answer{said: said, keys: list}, nil
}

func (k *ConsulKV) document(pair api.KVPair) config.Document {
	if k.Key != "" {
		return config.Document{Name: config.KindConsulKV + ":" + pair.Key, Text: string(pair.Value)}
	}
	return config.TreeDocument(config.KindConsulKV, pair.Key, pair.Key[len(k.Prefix):], string(pair.Value))
}

// check returns the report of an answer. Nothing where something was must be confirmed by the
// leader, if it is to be used.
func (k *ConsulKV) check(ctx context.Context, a answer, before config.Source) Report {
	if k.AllowEmpty && len(a.said.Documents) == 0 && len(before.Documents) > 0 {
		header, body, err := k.Client.Confirm(ctx, k.query())
		if err == nil {
			a, err = k.decode(header, body)
		}
		if err != nil {
			return Report{Err: fmt.Errorf("%s: empty, which Consul's leader does not confirm: %w", k.Before.Name, err)}
		}
	}
	return Report{Said: a.said}
}

// mayHaveForgotten reports whether Consul may have lost its state between two answers: it has no
// key any more, its index went backwards, or it has a key that is as old as before and was another
// one then. The index also goes backwards when Consul forgets a deletion, but then no key is
// missing that was there before.
func mayHaveForgotten(before config.Source, a answer) bool {
	then, _ := strconv.ParseUint(before.Revision, 10, 64)
	now, _ := strconv.ParseUint(a.said.Revision, 10, 64)
	if now < then || len(a.keys) == 0 && len(before.Documents) > 0 {
		return true
	}
	for i, pair := range a.keys {
		if pair.ModifyIndex <= then && !slices.Contains(before.Documents, a.said.Documents[i]) {
			return true
		}
	}
	return false
}
