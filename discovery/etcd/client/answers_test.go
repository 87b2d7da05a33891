package client_test

import (
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/test/hostile"
)

// hostileAnswers change the list of the keys below "/star/" that a cluster answers.
func hostileAnswers() []hostile.Case[func(*clientv3.GetResponse)] {
	return append(valuesInEtcd(), []hostile.Case[func(*clientv3.GetResponse)]{
		{Name: "no header", Reason: "no header", Answer: func(r *clientv3.GetResponse) { r.Header = nil }},
		{Name: "another key", Reason: "was not asked for", Answer: withKey("/elsewhere/and/longer")},
		{Name: "a short key", Reason: "was not asked for", Answer: withKey("/s")},
		{Name: "no key", Reason: "was not asked for", Answer: withKey("")},
		{Name: "no pair", Reason: "was not asked for", Answer: func(r *clientv3.GetResponse) { r.Kvs = append(r.Kvs, nil) }},
		{Name: "the prefix", Reason: "has no name after the prefix", Answer: withKey("/star/")},
		{Name: "a negative revision", Answer: func(r *clientv3.GetResponse) { r.Header.Revision = -1 << 63 }},
		{Name: "a negative count", Answer: func(r *clientv3.GetResponse) { r.Count = -1 }},
	}...)
}

func withKey(key string) func(*clientv3.GetResponse) {
	return func(r *clientv3.GetResponse) {
		r.Kvs = append(r.Kvs, &mvccpb.KeyValue{Key: []byte(key), Value: []byte("10.0.0.1:80"), ModRevision: 7})
	}
}

// valuesInEtcd are the hostile.Values of one instance.
func valuesInEtcd() (cases []hostile.Case[func(*clientv3.GetResponse)]) {
	for _, v := range hostile.Values() {
		switch v.Name {
		case "a million lines", "a line twice", "lists in each other", "a huge weight of a line": // one instance has one line
			v.Reason = "want"
		}
		cases = append(cases, hostile.Case[func(*clientv3.GetResponse)]{Name: v.Name, Reason: v.Reason, Set: v.Set, Large: v.Large, Answer: func(r *clientv3.GetResponse) {
			r.Kvs[0].Value, r.Kvs[0].ModRevision = []byte(v.Answer), r.Header.Revision
		}})
	}
	return cases
}
