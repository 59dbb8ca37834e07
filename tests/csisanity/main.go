// Csisanity runs the Kubernetes project's conformance suite of CSI drivers
// against Hearth's.
//
// The suite makes its volumes through a Controller service. Hearth has none, as
// nothing of it is provisioned: volumes name datasets. So one stands here, for the
// suite only, whose every volume is of the dataset in --dataset; identity and
// node calls go to the driver as they are.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

type suite struct{ failed bool }

func (s *suite) Fail() { s.failed = true }

// controller makes volumes of one dataset.
type controller struct {
	csi.UnimplementedControllerServer
	context map[string]string
}

func (c controller) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if r.GetName() == "" || len(r.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "name and capabilities are needed")
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId: r.GetName(), CapacityBytes: r.GetCapacityRange().GetRequiredBytes(), VolumeContext: c.context,
	}}, nil
}

func (controller) DeleteVolume(context.Context, *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	return &csi.DeleteVolumeResponse{}, nil
}

func (controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	create := csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: []*csi.ControllerServiceCapability{{
		Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: create}},
	}}}, nil
}

// identity is the driver's, with the controller added.
type identity struct {
	csi.UnimplementedIdentityServer
	driver csi.IdentityClient
}

func (i identity) GetPluginInfo(ctx context.Context, r *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return i.driver.GetPluginInfo(ctx, r)
}

func (i identity) Probe(ctx context.Context, r *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return i.driver.Probe(ctx, r)
}

func (i identity) GetPluginCapabilities(ctx context.Context, r *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	all, err := i.driver.GetPluginCapabilities(ctx, r)
	if err != nil {
		return nil, err
	}
	all.Capabilities = append(all.Capabilities, &csi.PluginCapability{Type: &csi.PluginCapability_Service_{
		Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE},
	}})
	return all, nil
}

// node passes calls on.
type node struct {
	csi.UnimplementedNodeServer
	driver csi.NodeClient
}

func (n node) NodePublishVolume(ctx context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	return n.driver.NodePublishVolume(ctx, r)
}

func (n node) NodeUnpublishVolume(ctx context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	return n.driver.NodeUnpublishVolume(ctx, r)
}

func (n node) NodeGetVolumeStats(ctx context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	return n.driver.NodeGetVolumeStats(ctx, r)
}

func (n node) NodeGetCapabilities(ctx context.Context, r *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return n.driver.NodeGetCapabilities(ctx, r)
}

func (n node) NodeGetInfo(ctx context.Context, r *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return n.driver.NodeGetInfo(ctx, r)
}

func main() {
	config := sanity.NewTestConfig()
	driver := flag.String("driver", "", "socket of the driver")
	front := flag.String("front", "", "socket to serve the suite at")
	dataset := flag.String("dataset", "", "dataset of every volume")
	namespace := flag.String("namespace", "", "namespace of the pods that the suite plays")
	flag.StringVar(&config.TargetPath, "mountdir", "", "where volumes are published")
	flag.StringVar(&config.StagingPath, "stagingdir", "", "where they would be staged")
	flag.Parse()

	connection, err := grpc.NewClient("unix://"+*driver, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	listener, err := net.Listen("unix", *front)
	check(err)
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, identity{driver: csi.NewIdentityClient(connection)})
	csi.RegisterNodeServer(server, node{driver: csi.NewNodeClient(connection)})
	csi.RegisterControllerServer(server, controller{context: map[string]string{
		"dataset": *dataset, "csi.storage.k8s.io/pod.namespace": *namespace,
	}})
	go func() { check(server.Serve(listener)) }()

	config.Address = *front
	result := &suite{}
	sanity.Test(result, config)
	if result.failed {
		os.Exit(1)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
