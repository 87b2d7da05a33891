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
func Refused(err error) bool {
	var answer rpctypes.EtcdError
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.Code() {
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument:
		return true // InvalidArgument: no or a wrong password
	}
	return false
}

// mayBeLoggedOut reports whether a lost login may cause err: the cluster refuses it or is silent.
func mayBeLoggedOut(err error) bool {
	var answer rpctypes.EtcdError
	if errors.As(err, &answer) {
		return answer.Code() == codes.Unauthenticated || answer.Code() == codes.InvalidArgument
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// explain adds to err what an operator can do about it.
func (f *follower) explain(err error) error {
	var answer rpctypes.EtcdError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("etcd %s: no answer: %w", f.cluster.options.Endpoints, err)
	case errors.As(err, &answer) && answer.Code() == codes.PermissionDenied:
		return fmt.Errorf("etcd: the user %q needs the read permission for %s: %w", f.cluster.options.User, f.options.Range, err)
	case Refused(err) && f.cluster.options.User == "":
		return fmt.Errorf("etcd: the cluster wants a user: %w", err)
	}
	return fmt.Errorf("etcd: %w", err)
}
