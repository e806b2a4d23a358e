"""Reading SAM and CloudFormation templates: text to nodes with lines, intrinsics to values, resources to specs."""
