package client

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
)

// Refused reports whether the cluster refuses the user or its query. A retry helps only after
// a change of the user, its password or its permissions.
func Refused(err error) bool { return codeOf(err) == codes.PermissionDenied || needsLogin(err) }

// codeOf returns the code of a cluster's answer; OK: err is none.
func codeOf(err error) codes.Code {
	answer, _ := errors.AsType[rpctypes.EtcdError](err)
	return answer.Code()
}

// needsLogin reports whether the cluster does not know who asks. InvalidArgument: no or a wrong
// password.
func needsLogin(err error) bool {
	return codeOf(err) == codes.Unauthenticated || codeOf(err) == codes.InvalidArgument
}

// mayBeLoggedOut reports whether a lost login may cause err: the cluster refuses it or is silent.
func mayBeLoggedOut(err error) bool {
	return needsLogin(err) || errors.Is(err, context.DeadlineExceeded)
}

// explain adds to err what an operator can do about it.
func (f *follower) explain(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("etcd %s: no answer: %w", f.cluster.options.Endpoints, err)
	case codeOf(err) == codes.PermissionDenied:
		return fmt.Errorf("etcd: the user %q needs the read permission for %s: %w", f.cluster.options.User, f.options.Range, err)
	case Refused(err) && f.cluster.options.User == "":
		return fmt.Errorf("etcd: the cluster wants a user: %w", err)
	}
	return fmt.Errorf("etcd: %w", err)
}
