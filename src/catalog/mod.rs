//! Nodes, placement, namespaces: rules over the system partition.
