package config

import (
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"

	"sluice/observe/panics"
)

// Decoded keeps the documents of the last two configurations that were built, so that a build
// decodes only the ones that differ, and the ones with errors, as a file that they name may be there
// now. The zero value is empty. It may be used concurrently.
type Decoded struct {
	mu sync.Mutex // guards the fields below

	consul       *Consul // of the configuration: defaults of services
	last, before map[writtenDocument]*fragment
}

// fragments returns the decoded documents, which must not be changed.
func (d *Decoded) fragments(documents []writtenDocument, consul *Consul) []*fragment {
	list := make([]*fragment, len(documents))
	if d == nil {
		decodeAll(documents, list, consul)
		return list
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !reflect.DeepEqual(d.consul, consul) {
		copied := *consul
		d.consul, d.last, d.before = &copied, nil, nil
	}
	for i, doc := range documents {
		if list[i] = d.last[doc]; list[i] == nil {
			list[i] = d.before[doc]
		}
	}
	decodeAll(documents, list, d.consul)
	d.last, d.before = make(map[writtenDocument]*fragment, len(documents)), d.last
	for i, doc := range documents {
		if len(list[i].errs) == 0 {
			d.last[doc] = list[i]
		}
	}
	return list
}

// decodeAll decodes the documents that are nil in list, on all processors.
func decodeAll(documents []writtenDocument, list []*fragment, consul *Consul) {
	next := make(chan int)
	var running sync.WaitGroup
	var failed atomic.Bool // a panic of a helper is one of the caller
	for range min(runtime.GOMAXPROCS(0), len(documents)) {
		running.Go(func() {
			defer panics.Contain(panics.Task, nil)
			for i := range next {
				func() {
					defer panics.Contain(panics.Task, func() { failed.Store(true) })
					list[i] = decodeDocument(documents[i], consul)
				}()
			}
		})
	}
	for i := range documents {
		if list[i] == nil {
			next <- i
		}
	}
	close(next)
	running.Wait()
	if failed.Load() {
		panic(panics.Err)
	}
}
