package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// apiVersions answers with what is served. Nothing is listed that is not.
func (s *Server) apiVersions(_ context.Context, _ *peer, req *kmsg.ApiVersionsRequest) kmsg.Response {
	return s.versions(req.Version, 0)
}

// versions is the answer to an ApiVersions request of a version that is served.
func (s *Server) versions(version int16, code errcode.Code) *kmsg.ApiVersionsResponse {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.Version = version
	resp.ErrorCode = int16(code)
	for i := range s.apis.all {
		a := &s.apis.all[i]
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = a.key, a.advertised, a.max
		resp.ApiKeys = append(resp.ApiKeys, k)
	}
	return resp
}
