package config

import (
	"reflect"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"sluice/observe/panics"
)

// Decoded keeps the documents of the last two configurations that were built, so that a build
// decodes only the ones that differ, and the ones with errors, as a file that they name may be
// there now. The zero value is empty. It may be used concurrently.
type Decoded struct {
	mu sync.Mutex // guards the fields below

	config       *Config // with what documents depend on: Consul, Defaults and Actions
	last, before map[writtenDocument]*fragment
}

// fragments returns the decoded documents of w, which must not be changed.
func (d *Decoded) fragments(documents []writtenDocument, w *whole) []*fragment {
	list, c := make([]*fragment, len(documents)), w.config
	if d == nil {
		decodeAll(documents, list, c, w)
		return list
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if used := (&Config{Consul: c.Consul, Defaults: c.Defaults, Actions: c.Actions}); !reflect.DeepEqual(d.config, used) {
		d.config, d.last, d.before = used, nil, nil
	}
	for i, doc := range documents {
		if list[i] = d.last[doc]; list[i] == nil {
			list[i] = d.before[doc]
		}
	}
	decodeAll(documents, list, d.config, w)
	d.last, d.before = make(map[writtenDocument]*fragment, len(documents)), d.last
	for i, doc := range documents {
		if len(list[i].Errs) == 0 {
			d.last[doc] = list[i]
		}
	}
	return list
}

// decodeAll decodes the documents that are nil in list, on all processors.
func decodeAll(documents []writtenDocument, list []*fragment, c *Config, w *whole) {
	var decoding errgroup.Group
	decoding.SetLimit(runtime.GOMAXPROCS(0))
	for i, doc := range documents {
		if list[i] != nil {
			continue
		}
		decoding.Go(func() (err error) {
			defer panics.Contain(panics.Task, func() { err = panics.Err })
			list[i] = decodeDocument(doc, c, w)
			return nil
		})
	}
	if err := decoding.Wait(); err != nil {
		panic(err) // of a helper, it is one of the caller
	}
}
